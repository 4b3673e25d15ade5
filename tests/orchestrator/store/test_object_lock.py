"""Conditional writes to a bucket, and what is done where a bucket has none."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path

import pyarrow as pa
import pytest

from orchestrator.store import Store, StoreLockedError, lock, lock_places, object_lock
from orchestrator.store.identity import Holder, this_driver
from orchestrator.store.lock_places import LOCK
from orchestrator.store.object_lock import Bucket
from orchestrator.store.segments import Segments
from tests.factories import measured_record
from tests.object_store import KEYS, ObjectStore, serving, serving_with_keys
from trainables.faults import FaultsError


@pytest.fixture(autouse=True)
def keys(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in KEYS.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(lock_places, "SETTLE_S", 0.1)


@pytest.fixture(scope="module")
def server() -> Iterator[ObjectStore]:
    with serving_with_keys() as store:
        yield store


@pytest.fixture
def store(server: ObjectStore, tmp_path: Path) -> Store:
    return Store(server.uri(tmp_path.name))


def segments(store: Store) -> list[str]:
    return store._folder.folder("trials").names()


def steal(store: Store) -> None:
    """Put another driver's lock in the place of the one that is there, as one that takes over does."""
    other = this_driver(5.0)
    store._folder.write(LOCK, other.content())


def test_an_object_is_written_only_where_it_is_as_it_was_seen(server: ObjectStore) -> None:
    bucket = Bucket(server.uri("x"), "us-east-1")
    assert bucket.get("sweeps/object") is None
    first = bucket.put("sweeps/object", b"1", over=None)
    assert first is not None
    assert bucket.put("sweeps/object", b"2", over=None) is None
    second = bucket.put("sweeps/object", b"2", over=first)
    assert second not in (None, first)
    assert bucket.put("sweeps/object", b"3", over=first) is None
    assert bucket.get("sweeps/object") == (b"2", second)
    assert bucket.put("sweeps/absent", b"1", over=first) is None


def test_writing_a_new_object_again_after_a_lost_answer_is_no_collision(server: ObjectStore) -> None:
    bucket = Bucket(server.uri("x"), "us-east-1")
    assert bucket.put_new("sweeps/new", b"1")
    assert bucket.put_new("sweeps/new", b"1")
    assert not bucket.put_new("sweeps/new", b"2")


def test_a_segment_is_never_put_in_the_place_of_another_drivers(store: Store) -> None:
    with store.lock():
        store.append([measured_record("t0")])
        (name,) = segments(store)
        place = store._folder.folder("trials").at(name.replace("00000001", "00000002"))
        assert store._folder.fence.put_new(place, b"another one's")
        with pytest.raises(StoreLockedError, match="has taken this store over"):
            store.append([measured_record("t1")])


def test_a_segment_whose_answer_was_lost_is_no_other_drivers_though_more_is_added_since(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    with store.lock():
        fence, first, second = store._folder.fence, measured_record("t0"), measured_record("t1")
        put = fence.put_new
        assert put is not None

        def lossy(path: str, content: bytes) -> bool:
            put(path, content)
            raise OSError("the connection was reset")

        monkeypatch.setattr(fence, "put_new", lossy)
        with pytest.raises(OSError, match="reset"):
            store.append([first])
        monkeypatch.setattr(fence, "put_new", put)
        store.append([first, second])
        assert sorted(store.statuses()) == ["t0", "t1"]
    assert sorted(record.trial_id for record in store.records()) == ["t0", "t1"]


def test_whoever_takes_over_leaves_a_segment_of_no_records_that_stays(store: Store, plan: pa.Table) -> None:
    with store.lock():
        store.create('{"name": "a"}', plan)
        store.append([measured_record("t0")])
        steal(store)
    with store.lock(take_over=True):
        assert len(segments(store)) == 2
        store.append([measured_record("t1")])
        store.compact()
        assert [name[:13] for name in segments(store)] == ["part-00000002", "part-00000003"]
        assert store.trials()["trial_id"].to_pylist() == ["t0", "t1"]
    with store.lock():  # given back in order: nobody has to be kept out
        assert len(segments(store)) == 2
    assert store.finished_ids() == {"t0", "t1"}


def test_a_driver_whose_lock_was_taken_stops_at_its_next_write(store: Store) -> None:
    with store.lock():
        store.append([measured_record("t0")])
        steal(store)
        with pytest.raises(StoreLockedError):
            store.append([measured_record("t1")])
    assert store.finished_ids() == {"t0"}
    assert store.holder() is not None  # the other one's lock is left alone


def test_a_driver_that_lost_its_store_leaves_the_others_note_of_its_engines(store: Store) -> None:
    with store.lock():
        store.write_engine_snapshot([])
        steal(store)
        store.remove_engine_snapshot()
    assert store._folder.exists("engines.json")


def test_a_server_that_goes_away_as_a_store_is_taken_up_is_a_fault_and_leaves_it_free(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError("the connection was reset")

    with monkeypatch.context() as network:
        network.setattr(Segments, "_fence_off", refuse)
        with pytest.raises(FaultsError, match="must be writable, but the connection was reset"), store.lock():
            pass
    with store.lock():
        store.append([measured_record("t0")])


def test_a_server_that_is_away_is_a_failing_storage(caplog: pytest.LogCaptureFixture) -> None:
    with serving() as server:
        store = Store(server.uri("away"))
        entered = store.lock()
        entered.__enter__()
        store.append([measured_record("t0")])
    with pytest.raises(OSError, match="sweeps"):
        store._held.check()
    caplog.clear()
    entered.__exit__(None, None, None)
    (told,) = caplog.records  # a line, and no traceback
    assert "lock.json could not be given back: " in told.message
    assert not told.exc_info


def test_a_bucket_that_is_not_there_is_a_fault(server: ObjectStore) -> None:
    store = Store(server.uri("x", bucket="missing"))
    with pytest.raises(FaultsError, match="must be writable"):
        store.lock().__enter__()


def test_a_server_that_refuses_conditions_is_one_without(server: ObjectStore, monkeypatch: pytest.MonkeyPatch) -> None:
    from botocore.exceptions import ClientError

    bucket = Bucket(server.uri("x"), "us-east-1")

    def refuse(**request: object) -> None:
        answer = {"Error": {"Code": "NotImplemented"}, "ResponseMetadata": {"HTTPStatusCode": 501}}
        raise ClientError(answer, "PutObject")  # type: ignore[arg-type]

    monkeypatch.setattr(bucket._client, "put_object", refuse)
    assert not bucket.is_conditional("sweeps/.lock.json.probe")


def test_where_conditions_are_ignored_a_sweep_needs_the_users_word_and_a_silent_driver_is_followed_on_demand_only(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = Bucket.put
    monkeypatch.setattr(
        object_lock.Bucket, "put", lambda self, path, content, *, over: real(self, path, content, over=None) or "x"
    )
    monkeypatch.setattr(lock, "SILENCE_S", 0.1)
    other = {**json.loads(this_driver(5.0).content()), "pid_namespace": 1}
    store._folder.write(LOCK, json.dumps(other).encode())
    with pytest.raises(FaultsError, match=r"knows no conditional writes.*--only-driver") as refusal:
        store.lock().__enter__()
    assert "adaptune[s3]" not in str(refusal.value)  # which is there
    with pytest.raises(StoreLockedError, match="--take-over"):
        store.lock(only_driver=True).__enter__()
    with store.lock(take_over=True, only_driver=True):
        store.append([measured_record("t0")])
    assert store.finished_ids() == {"t0"}


def without_boto3(store: Store, monkeypatch: pytest.MonkeyPatch) -> AbstractContextManager[None]:
    """`store.lock()` as a machine without boto3 has it."""
    with monkeypatch.context() as machine:
        machine.setitem(sys.modules, "boto3", None)
        entered = store.lock(only_driver=True)
        stack = ExitStack()
        stack.enter_context(entered)
    return stack


def test_without_boto3_a_bucket_is_refused_with_what_to_install_and_read_all_the_same(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    with store.lock():
        store.append([measured_record("t0")])
    monkeypatch.setitem(sys.modules, "boto3", None)
    with pytest.raises(FaultsError, match=r"need boto3.*pip install 'adaptune\[s3\]'.*--only-driver") as refusal:
        store.lock().__enter__()
    assert len(refusal.value.faults) == 1
    assert store.finished_ids() == {"t0"}
    with store.lock(only_driver=True):
        store.append([measured_record("t1")])
    assert store.finished_ids() == {"t0", "t1"}


@pytest.mark.parametrize("driver_has_it", [True, False], ids=["driver with boto3", "driver without"])
@pytest.mark.parametrize("watcher_has_it", [True, False], ids=["watcher with boto3", "watcher without"])
def test_a_driver_that_lives_is_seen_to_whichever_of_the_two_machines_has_boto3(
    store: Store, monkeypatch: pytest.MonkeyPatch, driver_has_it: bool, watcher_has_it: bool
) -> None:
    monkeypatch.setattr(lock, "BEAT_EVERY_S", 0.1)
    monkeypatch.setattr(lock, "SILENCE_S", 5.0)
    monkeypatch.setattr(lock, "LOOK_EVERY_S", 0.1)
    monkeypatch.setattr(Holder, "_is_visible", lambda self: False)  # they are on different machines
    watcher = Store(store.uri)
    with store.lock() if driver_has_it else without_boto3(store, monkeypatch):
        mine = store.holder()
        with pytest.raises(StoreLockedError, match="is at work"):
            watcher.lock().__enter__() if watcher_has_it else without_boto3(watcher, monkeypatch)
        assert store.holder().token == mine.token
        assert becomes(lambda: store.holder().beats > mine.beats + 1)
        store.append([measured_record("t0")])
    assert store.holder() is None
    assert store.finished_ids() == {"t0"}


@pytest.mark.parametrize("driver_has_it", [True, False], ids=["driver with boto3", "driver without"])
def test_each_sign_of_life_changes_the_tag_of_the_lock(
    store: Store, server: ObjectStore, monkeypatch: pytest.MonkeyPatch, driver_has_it: bool
) -> None:
    bucket = Bucket(server.uri("x"), "us-east-1")
    with store.lock() if driver_has_it else without_boto3(store, monkeypatch):
        tags = []
        for _ in range(3):
            store._held._place.beat(store._held._mine)
            tags.append(bucket.get(store._folder.at(LOCK))[1])
    assert len(set(tags)) == 3


def becomes(is_so: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + 20
    while not is_so():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True
