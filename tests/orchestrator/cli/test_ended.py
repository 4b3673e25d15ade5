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
    # As a shell in the foreground leaves them: the tests may run in its background, where SIGINT is ignored.
    usual = {signal.SIGINT: signal.default_int_handler, signal.SIGTERM: signal.SIG_DFL, signal.SIGHUP: signal.SIG_DFL}
    before = {each: signal.signal(each, handler) for each, handler in usual.items()}
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
