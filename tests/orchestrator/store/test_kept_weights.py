"""Kept weights: whole or not there, of the training that is recorded, and gone when their trial is retired."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pyarrow as pa
import pytest

from orchestrator.record import TrialStatus
from orchestrator.store import Store, StoreLockedError, lock_places
from tests.factories import planned_trial, trial_record
from tests.object_store import KEYS, serving

FILES = {"adapter_config.json": b"", "references/adapters/0-a/x": b"file", "adapter_model.safetensors": b"weights"}


def of_training(started_at: str, weights: bytes = b"weights") -> dict[str, bytes]:
    about = {"started_at": started_at, "weights_sha256": hashlib.sha256(weights).hexdigest()}
    return FILES | {"adapter_config.json": json.dumps(about).encode(), "adapter_model.safetensors": weights}


def test_what_is_kept_is_read_again_until_it_is_removed(tmp_path: Path, plan: pa.Table) -> None:
    store = Store(tmp_path)
    assert store.kept_weights() == frozenset()
    assert store.weights("t0", "then") is None
    with store.lock():
        store.begin('{"name": "quickstart"}', plan)
        store.keep_weights("t0", of_training("then"))
        store.keep_weights("t1", of_training("then"))
        assert Store(tmp_path).weights("t0", "then") == of_training("then")
        store.keep_weights("t0", of_training("now", b"others"))  # trained again
        assert store.weights("t0", "then") is None
        store.remove_weights(["t1", "unknown"])
    assert store.kept_weights() == {"t0"}
    assert store.weights("t0", "now") == of_training("now", b"others")
    assert sorted(path.name for path in (tmp_path / "kept").iterdir()) == ["t0"]
    assert not list(tmp_path.glob(".writing-*"))


@pytest.mark.parametrize(
    ("name", "content"),
    [("adapter_model.safetensors", b"weigh"), ("adapter_config.json", b"{"), ("adapter_config.json", b"[1]")],
)
def test_what_is_torn_is_passed_over(tmp_path: Path, name: str, content: bytes) -> None:
    store = Store(tmp_path)
    store.keep_weights("t0", of_training("then"))
    (tmp_path / "kept" / "t0" / name).write_bytes(content)
    assert store.weights("t0", "then") is None


def test_a_folder_without_its_configuration_is_not_there(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.keep_weights("t0", of_training("then"))
    (tmp_path / "kept" / "t0" / "adapter_config.json").unlink()  # as a driver leaves it that dies as it writes
    assert store.kept_weights() == frozenset()
    assert store.weights("t0", "then") is None


def test_those_of_a_retired_trial_go_with_its_record(tmp_path: Path, plan: pa.Table) -> None:
    store = Store(tmp_path)
    store.begin('{"name": "quickstart"}', plan)
    store.append([trial_record(planned_trial(i), TrialStatus.COMPLETED) for i in ("t0", "t1")])
    for trial_id in ("t0", "t1"):
        store.keep_weights(trial_id, of_training("then"))
    store.retire(["t0"], even_finished=True)
    assert store.kept_weights() == {"t1"}


def test_a_driver_that_lost_the_store_neither_writes_nor_removes(tmp_path: Path, plan: pa.Table) -> None:
    late, other = Store(tmp_path), Store(tmp_path)
    with late.lock():
        late.begin('{"name": "quickstart"}', plan)
        late.keep_weights("t0", of_training("then"))
        with other.lock(take_over=True):
            with pytest.raises(StoreLockedError):
                late.keep_weights("t1", of_training("then"))
            with pytest.raises(StoreLockedError):
                late.remove_weights(["t0"])
            with pytest.raises(StoreLockedError):  # between its look at the lock and the write
                late._weights.remove(["t0"])
            with pytest.raises(StoreLockedError):
                late._weights.write("t0", of_training("now"))
    assert other.weights("t0", "then") == of_training("then")


@pytest.mark.thorough
def test_a_bucket_keeps_them_as_a_disk_does(plan: pa.Table, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in KEYS.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(lock_places, "SETTLE_S", 0.1)
    with serving() as server:
        store = Store(server.uri("kept"))
        assert store.kept_weights() == frozenset()
        with store.lock():
            store.begin('{"name": "quickstart"}', plan)
            for trial_id in ("t0", "t1"):
                store.keep_weights(trial_id, of_training("then"))
            assert store.kept_weights() == {"t0", "t1"}
            store.keep_weights("t0", of_training("now", b"others"))
            store.remove_weights(["t1", "unknown"])
        read = Store(server.uri("kept"))
        assert read.kept_weights() == {"t0"}
        assert read.weights("t0", "then") is None
        assert read.weights("t0", "now") == of_training("now", b"others")
        assert read._weights._folder.folders() == ["t0"]
