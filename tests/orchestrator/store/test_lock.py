from __future__ import annotations

import json
import os
import socket
import subprocess
import sys

import pytest

from orchestrator.store import Store, StoreLockedError
from orchestrator.store.lock import LOCK

BEGAN = "2025-01-02T03:04:05+00:00"


def _leave_lock(path, **changes) -> None:
    holder = {"host": socket.gethostname(), "pid": os.getpid(), "started_at": BEGAN, "birth": None, "token": "x"}
    path.mkdir(exist_ok=True)
    (path / LOCK).write_text(json.dumps(holder | changes))


def _pid_of_a_dead_process() -> int:
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        process.wait()
    return process.pid


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


def test_the_lock_of_a_dead_process_is_taken_over_with_a_warning(tmp_path, caplog):
    _leave_lock(tmp_path, pid=_pid_of_a_dead_process())
    with Store(tmp_path).lock():
        assert json.loads((tmp_path / LOCK).read_text())["pid"] == os.getpid()
    assert "taking over the lock" in caplog.text
    assert list(tmp_path.iterdir()) == []


def test_the_lock_of_a_dead_process_is_recognised_though_its_pid_lives_again(tmp_path):
    _leave_lock(tmp_path, birth="another boot/1")
    with Store(tmp_path).lock():
        assert json.loads((tmp_path / LOCK).read_text())["token"] != "x"


def test_the_lock_of_another_host_is_never_taken_over(tmp_path):
    _leave_lock(tmp_path, host="elsewhere", pid=_pid_of_a_dead_process())
    with pytest.raises(StoreLockedError, match=r"on elsewhere, since 2025-01-02.*delete .*lock.json"):
        Store(tmp_path).lock().__enter__()


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
    with Store(str(tmp_path), filesystem=filesystem).lock(), pytest.raises(StoreLockedError):
        Store(str(tmp_path), filesystem=filesystem).lock().__enter__()
    assert not (tmp_path / LOCK).exists()
