from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
import time

import pytest

from orchestrator.store import Store, StoreLockedError, lock, lock_places
from orchestrator.store.identity import birth_of, boot_id, pid_namespace
from orchestrator.store.lock_places import LOCK
from tests.factories import measured_record
from trainables.faults import FaultsError

BEGAN = "2025-01-02T03:04:05+00:00"


def _leave_lock(path, **changes) -> None:
    holder = {"host": socket.gethostname(), "pid": os.getpid(), "started_at": BEGAN, "birth": None, "token": "x"}
    path.mkdir(exist_ok=True)
    (path / ".writing-x").mkdir(exist_ok=True)
    (path / LOCK).write_text(json.dumps(holder | changes))


HERE = {"birth": f"{boot_id()}/1", "pid_namespace": pid_namespace()}  # of this kernel, seen from here


def _pid_of_a_dead_process() -> int:
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        process.wait()
    return process.pid


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """Tenths of a second stand for minutes."""
    monkeypatch.setattr(lock, "BEAT_EVERY_S", 0.02)
    monkeypatch.setattr(lock, "SILENCE_S", 0.4)
    monkeypatch.setattr(lock, "LOOK_EVERY_S", 0.02)
    monkeypatch.setattr(lock_places, "SETTLE_S", 0.1)
    monkeypatch.setattr(lock_places, "HALF_TAKEN_S", 0.1)


def test_the_lock_is_there_for_the_block_and_gone_after_it(tmp_path):
    with Store(tmp_path / "s").lock():
        holder = json.loads((tmp_path / "s" / LOCK).read_text())
        assert (holder["host"], holder["pid"]) == (socket.gethostname(), os.getpid())
    assert not (tmp_path / "s" / LOCK).exists()


def test_a_driver_that_fails_gives_the_lock_back(tmp_path):
    with pytest.raises(ZeroDivisionError), Store(tmp_path).lock():
        raise ZeroDivisionError
    assert not (tmp_path / LOCK).exists()


def test_a_second_driver_is_refused_with_the_host_and_process_of_the_first(tmp_path):
    with Store(tmp_path).lock():
        with pytest.raises(StoreLockedError, match=f"process {os.getpid()} on {socket.gethostname()}"):
            Store(tmp_path).lock().__enter__()
        assert (tmp_path / LOCK).exists()


def test_the_lock_of_a_dead_process_is_taken_over_at_once_with_a_warning(tmp_path, caplog, monkeypatch):
    monkeypatch.setattr(lock, "SILENCE_S", 600.0)
    _leave_lock(tmp_path, pid=_pid_of_a_dead_process(), **HERE)
    with Store(tmp_path).lock():
        assert json.loads((tmp_path / LOCK).read_text())["pid"] == os.getpid()
    assert "taking over the lock" in caplog.text
    assert list(tmp_path.iterdir()) == []


def test_the_lock_of_a_dead_process_is_recognised_though_its_pid_lives_again(tmp_path):
    _leave_lock(tmp_path, **HERE)
    with Store(tmp_path).lock():
        assert json.loads((tmp_path / LOCK).read_text())["token"] != "x"


def test_a_process_that_has_ended_and_was_not_waited_for_is_dead():
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        assert _becomes(lambda: birth_of(process.pid) is None)


@pytest.mark.parametrize(
    "elsewhere",
    [
        {"birth": "another boot/1", "pid_namespace": pid_namespace()},
        {"birth": f"{boot_id()}/1", "pid_namespace": 1},
        {"birth": f"{boot_id()}/1", "pid_namespace": None},
        {"birth": None, "pid_namespace": pid_namespace()},
    ],
)
def test_a_process_that_cannot_be_seen_from_here_is_not_known_to_be_dead(tmp_path, elsewhere):
    """Containers may share the host's name, and each has a process 1."""
    _leave_lock(tmp_path, pid=_pid_of_a_dead_process(), **elsewhere)
    assert Store(tmp_path).holder().token == "x"
    with pytest.raises(StoreLockedError, match=r"since 2025-01-02.*--take-over.*delete .*lock.json"):
        Store(tmp_path).lock().__enter__()


@pytest.mark.parametrize("changes", [{}, {"host": "elsewhere"}, {"pid": 1, "beat_every_s": 15.0}])
def test_with_take_over_it_is_taken_over_at_once(tmp_path, monkeypatch, changes, caplog):
    monkeypatch.setattr(lock, "SILENCE_S", 600.0)
    _leave_lock(tmp_path, **changes)
    with Store(tmp_path).lock(take_over=True):
        assert json.loads((tmp_path / LOCK).read_text())["fence"] == 2
    assert "as asked for" in caplog.text
    assert list(tmp_path.iterdir()) == []


def test_a_lock_without_its_drivers_folder_is_taken_over_too(tmp_path):
    """One of an older version, or one whose successor died while it took over."""
    _leave_lock(tmp_path)
    (tmp_path / ".writing-x").rmdir()
    (tmp_path / ".writing-dead").mkdir()
    with Store(tmp_path).lock(take_over=True):
        assert json.loads((tmp_path / LOCK).read_text())["token"] != "x"
    assert list(tmp_path.iterdir()) == []


def test_a_lock_that_cannot_be_read_is_refused_with_what_to_do(tmp_path):
    (tmp_path / LOCK).write_text("")
    with pytest.raises(StoreLockedError, match="if no driver is at work, delete"):
        Store(tmp_path).lock().__enter__()


def test_a_lock_that_another_driver_took_over_is_not_removed_on_leaving(tmp_path):
    with Store(tmp_path).lock():
        _leave_lock(tmp_path, host="elsewhere")
    assert json.loads((tmp_path / LOCK).read_text())["host"] == "elsewhere"


def test_where_files_cannot_be_created_exclusively_a_second_driver_is_refused_too(tmp_path, failing):
    _, filesystem = failing
    with Store(str(tmp_path), filesystem=filesystem).lock(only_driver=True), pytest.raises(StoreLockedError):
        Store(str(tmp_path), filesystem=filesystem).lock(only_driver=True).__enter__()
    assert not (tmp_path / LOCK).exists()


def test_where_a_second_driver_cannot_be_kept_out_nothing_is_begun_without_the_users_word(tmp_path, failing):
    _, filesystem = failing
    store = Store(str(tmp_path), filesystem=filesystem)
    with pytest.raises(FaultsError, match=r"no conditional writes for py::.*; keep it on .*--only-driver.*only_driver"):
        store.lock().__enter__()
    assert list(tmp_path.iterdir()) == []
    with store.lock(only_driver=True):
        store.append([measured_record("t0")])
    assert Store(str(tmp_path), filesystem=filesystem).finished_ids() == {"t0"}  # readers need no word


class TestSignsOfLife:
    """A driver touches its lock, so that one which has died is told from one which has not, wherever it runs."""

    def _age(self, path, seconds):
        then = time.time() - seconds
        os.utime(path, (then, then))

    def test_the_lock_of_a_driver_at_work_is_never_old(self, tmp_path):
        store = Store(tmp_path)
        with store.lock():
            self._age(tmp_path / LOCK, 3600)
            assert _becomes(lambda: Store(tmp_path).silent_s() < 60)
        assert store.silent_s() is None

    def test_where_files_are_replaced_it_is_written_anew(self, tmp_path, failing):
        _, filesystem = failing
        store = Store(str(tmp_path), filesystem=filesystem)
        with store.lock(only_driver=True):
            before = json.loads((tmp_path / LOCK).read_text())
            self._age(tmp_path / LOCK, 3600)
            assert _becomes(lambda: store.silent_s() < 60)
            after = json.loads((tmp_path / LOCK).read_text())
            assert after.pop("beats") > before.pop("beats")
            assert after == before

    @pytest.mark.parametrize("off_by_s", [-1e8, 0, 1e8])
    def test_a_driver_that_is_silent_while_it_is_watched_is_taken_over_whatever_the_clocks_say(
        self, tmp_path, caplog, off_by_s
    ):
        _leave_lock(tmp_path, host="elsewhere", pid=77, beat_every_s=15.0)
        self._age(tmp_path / LOCK, off_by_s)
        began = time.monotonic()
        with Store(tmp_path).lock():
            assert time.monotonic() - began >= lock.SILENCE_S
            assert json.loads((tmp_path / LOCK).read_text())["host"] == socket.gethostname()
        assert "process 77 on elsewhere" in caplog.text
        assert "no sign of life for" in caplog.text
        assert list(tmp_path.iterdir()) == []

    @pytest.mark.parametrize("off_by_s", [-1e8, 0, 1e8])
    def test_one_sign_of_life_while_it_is_watched_keeps_another_driver_out(self, tmp_path, monkeypatch, off_by_s):
        monkeypatch.setattr(lock, "SILENCE_S", 600.0)
        _leave_lock(tmp_path, host="elsewhere", pid=77, beat_every_s=15.0)
        sign = threading.Timer(0.3, self._age, (tmp_path / LOCK, off_by_s))
        sign.start()
        with pytest.raises(StoreLockedError, match="process 77 on elsewhere"):
            Store(tmp_path).lock().__enter__()
        sign.join()
        assert sorted(path.name for path in tmp_path.iterdir()) == [".writing-x", LOCK]

    def test_one_that_is_given_back_meanwhile_is_free(self, tmp_path, monkeypatch):
        monkeypatch.setattr(lock, "SILENCE_S", 600.0)
        _leave_lock(tmp_path, host="elsewhere", pid=77, beat_every_s=15.0)
        end = threading.Timer(0.3, (tmp_path / LOCK).unlink)
        end.start()
        with Store(tmp_path).lock():
            end.join()
            assert json.loads((tmp_path / LOCK).read_text())["fence"] == 1

    def test_a_driver_of_old_that_gives_no_signs_is_not_taken_over_unasked(self, tmp_path):
        _leave_lock(tmp_path, host="elsewhere")
        with pytest.raises(StoreLockedError, match="on elsewhere"):
            Store(tmp_path).lock().__enter__()

    def test_where_nothing_is_exclusive_a_silent_driver_is_not_taken_over_unasked(self, tmp_path, failing):
        _, filesystem = failing
        _leave_lock(tmp_path, host="elsewhere", beat_every_s=15.0)
        store = Store(str(tmp_path), filesystem=filesystem)
        with pytest.raises(StoreLockedError, match="--take-over"):
            store.lock(only_driver=True).__enter__()
        with store.lock(take_over=True, only_driver=True):
            assert json.loads((tmp_path / LOCK).read_text())["host"] == socket.gethostname()

    def test_a_driver_that_wakes_after_it_was_taken_over_writes_nothing_more(self, tmp_path, plan):
        store = Store(tmp_path)
        with store.lock():
            store.create('{"name": "a"}', plan)
            store.append([measured_record("t0")])
            _leave_lock(tmp_path, host="elsewhere", pid=77)
            writes = [
                lambda: store.append([measured_record("t1")]),
                lambda: store.retire(["t0"], even_finished=True),
                lambda: store.begin('{"name": "b"}', plan),
                lambda: store.add_planned(plan),
                lambda: store.write_engine_snapshot([]),
                store.compact,
            ]
            time.sleep(0.1)  # until no sign of life is under way
            before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
            for write in writes:
                with pytest.raises(StoreLockedError, match="process 77 on elsewhere has taken this store over"):
                    write()
            assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before
        assert json.loads((tmp_path / LOCK).read_text())["host"] == "elsewhere"

    def test_a_lock_that_somebody_deleted_is_made_anew(self, tmp_path, caplog):
        store = Store(tmp_path)
        with store.lock():
            (tmp_path / LOCK).unlink()
            store.append([measured_record("t0")])
            with pytest.raises(StoreLockedError):
                Store(tmp_path).lock().__enter__()
        assert "made anew" in caplog.text
        assert not (tmp_path / LOCK).exists()

    def test_a_store_that_is_gone_is_a_failing_storage_and_not_written_in_its_empty_place(self, tmp_path, plan):
        store = Store(tmp_path / "s")
        with store.lock():
            store.create('{"name": "a"}', plan)
            store.append([measured_record("t0")])
            (tmp_path / "s").rename(tmp_path / "away")
            (tmp_path / "s").mkdir()  # where the disk was mounted
            time.sleep(0.1)  # for some signs of life, of which none must make the lock anew there
            with pytest.raises(OSError, match="is gone"):
                store.append([measured_record("t1")])
            store.write_engine_snapshot([])
            assert list((tmp_path / "s").iterdir()) == []
            (tmp_path / "s").rmdir()
            (tmp_path / "away").rename(tmp_path / "s")
            store.append([measured_record("t1")])
        assert store.finished_ids() == {"t0", "t1"}


@pytest.mark.parametrize("text", ["", "[]", "null", "7", '{"host": "h"}', "[" * 100_000])
def test_a_lock_that_says_nothing_is_a_fault_to_whoever_asks(tmp_path, text):
    (tmp_path / LOCK).write_text(text)
    _is_refused(tmp_path)


@pytest.mark.parametrize(
    "change",
    [
        {"pid": -1},
        {"pid": 0},
        {"pid": "x"},
        {"pid": 10**12},
        {"token": 3},
        {"host": None},
        {"who": "me"},
        {"token": "../x"},
        {"fence": "1"},
        {"pid_namespace": 1.5},
        {"released": 0},
        {"beat_every_s": "x"},
    ],
)
def test_a_lock_that_says_nonsense_is_a_fault_to_whoever_asks(tmp_path, change):
    _leave_lock(tmp_path, **change)
    _is_refused(tmp_path)


def _is_refused(path) -> None:
    for ask in (Store(path).holder, Store(path).lock().__enter__):
        with pytest.raises(FaultsError, match=r"lock.json cannot be read"):
            ask()


def test_a_folder_in_the_place_of_the_lock_is_a_fault(tmp_path):
    (tmp_path / LOCK).mkdir(parents=True)
    for ask in (Store(tmp_path).holder, Store(tmp_path).lock().__enter__):
        with pytest.raises(FaultsError):
            ask()


def _becomes(is_so):
    deadline = time.monotonic() + 20
    while not is_so():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True
