"""A command that a signal ends before anything trains: the exit status names the signal, and nothing is left locked."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any

import pytest

from orchestrator.cli import main
from orchestrator.run import sweep as run
from orchestrator.store import Store


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_before_the_trials_ends_in_order(
    number: signal.Signals,
    home: Path,
    write_sweep: Any,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def begin(*_: object) -> None:
        signal.raise_signal(number)

    monkeypatch.setattr(run, "_begin", begin)
    before = {each: signal.signal(each, signal.SIG_DFL) for each in (signal.SIGTERM, signal.SIGHUP)}
    try:
        assert main(["run", write_sweep(), "--store", "here"]) == 128 + number
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)
    shown = capsys.readouterr()
    assert "go on with:  adaptune resume" in shown.out
    assert "Traceback" not in shown.err
    with Store("here").lock():
        pass
