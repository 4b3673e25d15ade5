"""The command that plays rounds goes on where it stopped, and ends badly where any round did. No round is played."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.chaos import __main__ as command
from tests.chaos.rounds import Result


class Session:
    """One whose rounds come to their end at once."""

    played: list[int]
    violations: dict[int, list[str]]

    def __init__(self, folder: Path, seed: int) -> None:
        folder.mkdir(parents=True, exist_ok=True)

    def __enter__(self) -> Session:
        return self

    def __exit__(self, *exception: object) -> None: ...

    def undisturbed(self) -> Result:
        return Result(number=-1, faults=[])

    def play(self, number: int) -> Result:
        self.played.append(number)
        if number == 13:
            raise KeyboardInterrupt
        return Result(number=number, faults=[], met=["engine killed"], violations=self.violations.get(number, []))


@pytest.fixture
def session(monkeypatch: pytest.MonkeyPatch) -> type[Session]:
    Session.played, Session.violations = [], {}
    monkeypatch.setattr(command, "Session", Session)
    monkeypatch.setattr(command.signal, "signal", lambda *given: None)
    return Session


def run(monkeypatch: pytest.MonkeyPatch, out: Path, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["chaos", "--out", str(out), *arguments])
    return command.main()


def test_what_was_played_before_counts_and_only_the_rest_is_played(
    session: type[Session], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, tmp_path, "--rounds", "15") == 1  # interrupted in the 14th
    assert session.played == list(range(14))
    session.played.clear()
    assert run(monkeypatch, tmp_path, "--rounds", "13", "--go-on") == 0
    assert session.played == []
    capsys.readouterr()
    assert run(monkeypatch, tmp_path, "--round", "2", "--round", "20", "--go-on") == 0
    assert session.played == [20]
    assert "14 rounds" in capsys.readouterr().out
    session.played.clear()
    assert run(monkeypatch, tmp_path, "--rounds", "2") == 0
    assert session.played == [0, 1]


def test_a_violation_of_an_earlier_run_stays_one(
    session: type[Session], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    session.violations[1] = ["a trial was trained twice"]
    assert run(monkeypatch, tmp_path, "--rounds", "2") == 1
    assert run(monkeypatch, tmp_path, "--rounds", "3", "--go-on") == 1
    assert "1 rounds with violations [1]" in capsys.readouterr().out
