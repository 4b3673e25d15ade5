"""The choice of a folder whose path is short enough for Ray's sockets."""

from __future__ import annotations

import logging
import os
import socket
import tempfile
from pathlib import Path

import pytest

from orchestrator.scheduling import ray_folder as module
from orchestrator.scheduling.ray_folder import MOST_BYTES, ray_folder
from trainables.faults import FaultsError

MOST = MOST_BYTES - 77  # bytes of TMPDIR, beside what is added to it
LONG = "/tmp/" + "x" * 120  # as a batch system may set it


@pytest.fixture(autouse=True)
def _without_ray_tmpdir(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_TMPDIR", raising=False)


@pytest.mark.parametrize("is_set", [False, True])
def test_the_folder_is_new_below_tmpdir_and_for_this_user_alone(
    is_set: bool, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "orchestrator")
    monkeypatch.delenv("TMPDIR", raising=False)
    with tempfile.TemporaryDirectory(prefix="t", dir="/tmp") as place:
        if is_set:
            monkeypatch.setenv("TMPDIR", place)
        told: list[str] = []
        with ray_folder(told.append) as first, ray_folder(told.append) as second:
            assert first is not None
            assert second is not None
            assert first != second
            assert Path(first).parent == Path(place if is_set else "/tmp")
            assert Path(first).stat().st_mode & 0o777 == 0o700
            assert Path(first).stat().st_uid == os.getuid()
            Path(first, "logs").mkdir()
        assert told == []
        assert not Path(first).exists()
        assert not Path(second).exists()


def test_who_looks_for_a_fault_finds_ray_s_logs(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "orchestrator")
    with ray_folder(print) as folder:
        pass
    assert folder is not None
    assert f"Ray's logs stay in {folder}" in caplog.text
    Path(folder).rmdir()


def test_a_long_one_gives_way_to_a_short_one_of_this_process_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", LONG)
    told: list[str] = []
    with ray_folder(told.append) as first:
        assert first is not None
        assert Path(first).parent == Path("/tmp")
        assert Path(first).stat().st_mode & 0o777 == 0o700
        sockets = Path(first) / "session_2026-12-31_23-59-59_999999_4194304" / "sockets"
        sockets.mkdir(parents=True)
        with socket.socket(socket.AF_UNIX) as bound:  # as long as Ray's longest, and a socket can have it
            bound.bind(str(sockets / "plasma_store"))
    assert not Path(first).exists()
    assert told[0] == f"TMPDIR is too long for Ray's sockets (125 bytes, at most {MOST}): Ray works in {first} instead."


def test_the_longest_folder_that_a_socket_can_have_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    with tempfile.TemporaryDirectory(prefix="t", dir="/tmp") as place:
        for length, is_taken in ((MOST, True), (MOST + 1, False)):
            wanted = Path(place, "t" * (length - len(place) - 1))
            wanted.mkdir()
            monkeypatch.setenv("TMPDIR", str(wanted))
            with ray_folder(print) as folder:
                assert folder is not None
                assert (Path(folder).parent == wanted) is is_taken


def test_one_that_cannot_be_written_gives_way_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", "/proc")
    told: list[str] = []
    with ray_folder(told.append) as folder:
        assert told == [f"TMPDIR cannot be written: Ray works in {folder} instead."]


def test_ray_s_own_variable_wins_and_counts_in_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", LONG)
    with tempfile.TemporaryDirectory(prefix="t", dir="/tmp") as place:
        monkeypatch.setenv("RAY_TMPDIR", place)
        with ray_folder(print) as folder:
            assert folder is not None
            assert folder.startswith(f"{place}/")
    monkeypatch.setenv("RAY_TMPDIR", "/" + "\N{SNOWMAN}" * 20)  # 21 letters, 61 bytes
    told: list[str] = []
    with ray_folder(told.append) as folder:
        assert folder is not None
    assert told[0].startswith("RAY_TMPDIR is too long for Ray's sockets (61 bytes")


def test_the_next_place_is_taken_where_one_cannot_be_written(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", LONG)
    monkeypatch.setattr(module, "SHORT_PLACES", ("/proc", "/no/such/place", f"/tmp/{'y' * 60}", "/tmp"))
    with ray_folder(print) as folder:
        assert folder is not None
        assert folder.startswith("/tmp/ray-")


def test_without_any_place_there_is_one_clear_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", LONG)
    monkeypatch.setattr(module, "SHORT_PLACES", ("/proc", "/no/such/place"))
    with pytest.raises(FaultsError) as refusal, ray_folder(print):
        pass
    (fault,) = refusal.value.faults
    assert "TMPDIR has 125 and none can be made below /proc, /no/such/place; set RAY_TMPDIR" in fault
