"""The choice of a folder whose path is short enough for Ray's sockets."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from orchestrator.scheduling import ray_folder as module
from orchestrator.scheduling.ray_folder import MOST_BYTES, ray_folder
from trainables.faults import FaultsError

LONG = "/tmp/" + "x" * 120  # as a batch system may set it


@pytest.fixture(autouse=True)
def _without_ray_tmpdir(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_TMPDIR", raising=False)


@pytest.mark.parametrize("folder", [None, "/tmp", "/scratch/job/1234567"])
def test_a_short_folder_is_left_to_ray(folder: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    if folder is None:
        monkeypatch.delenv("TMPDIR", raising=False)
    else:
        monkeypatch.setenv("TMPDIR", folder)
    told: list[str] = []
    with ray_folder(told.append) as chosen:
        assert chosen is None
    assert told == []


def test_a_long_one_gives_way_to_a_short_one_of_this_process_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", LONG)
    told: list[str] = []
    with ray_folder(told.append) as first, ray_folder(told.append) as second:
        assert first is not None
        assert second is not None
        assert first != second
        assert Path(first).stat().st_mode & 0o777 == 0o700
        assert Path(first).stat().st_uid == os.getuid()
        sockets = Path(first) / "session_2026-12-31_23-59-59_999999_4194304" / "sockets"
        sockets.mkdir(parents=True)
        with socket.socket(socket.AF_UNIX) as bound:  # as long as Ray's longest, and a socket can have it
            bound.bind(str(sockets / "plasma_store"))
    assert not Path(first).exists()
    assert not Path(second).exists()
    assert told[0] == (
        f"TMPDIR is too long for Ray's sockets (125 bytes, at most {MOST_BYTES - 68}): Ray works in {first} instead."
    )


def test_the_longest_folder_that_ray_can_use_is_left_to_it(monkeypatch: pytest.MonkeyPatch) -> None:
    most = MOST_BYTES - 68
    for length, is_left in ((most, True), (most + 1, False)):
        monkeypatch.setenv("TMPDIR", "/" + "t" * (length - 1))
        with ray_folder(print) as folder:
            assert (folder is None) is is_left


def test_ray_s_own_variable_wins_and_counts_in_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", LONG)
    monkeypatch.setenv("RAY_TMPDIR", "/scratch")
    with ray_folder(print) as folder:
        assert folder is None
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
        assert folder.startswith("/tmp/adaptune-ray-")


def test_without_any_place_there_is_one_clear_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", LONG)
    monkeypatch.setattr(module, "SHORT_PLACES", ("/proc", "/no/such/place"))
    with pytest.raises(FaultsError) as refusal, ray_folder(print):
        pass
    (fault,) = refusal.value.faults
    assert "TMPDIR has 125 and none can be made below /proc, /no/such/place; set RAY_TMPDIR" in fault
