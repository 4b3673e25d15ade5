"""A command that a signal ends before anything trains: the exit status names the signal, and nothing is left locked."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest

from orchestrator.cli import main
from orchestrator.run import sweep as run
from orchestrator.scheduling.early_end import EarlyEnd
from orchestrator.store import Store
from trainables.faults import FaultsError


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
        places = ["--address", "10.0.0.1:6379", "--tracking-uri", "sqlite:///my runs.db"]
        assert main(["run", write_sweep(), "--store", "here", "--only-driver", *places]) == 128 + number
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)
    shown = capsys.readouterr()
    resume = "adaptune resume here --address 10.0.0.1:6379 --tracking-uri 'sqlite:///my runs.db' --only-driver"
    assert f"go on with:  {resume}\n" in shown.out
    assert "Traceback" not in shown.err
    with Store("here").lock():
        pass


def test_an_interrupt_is_none_the_less_where_the_store_cannot_be_read_at_the_end(
    home: Path, write_sweep: Any, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def unreadable(*_: object) -> None:
        raise FaultsError("store here", ["the store must be readable, but the network is down"])

    monkeypatch.setattr(run, "_train", lambda *_: EarlyEnd(signal=signal.SIGINT))
    monkeypatch.setattr(run, "results_of", unreadable)
    assert main(["run", write_sweep(), "--store", "here"]) == 130
    shown = capsys.readouterr()
    assert "go on with:  adaptune resume here" in shown.out
    assert "interrupted: the store must be readable, but the network is down" in shown.err


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_the_pages_of_mlflow_end_with_whoever_asked_for_them(number: signal.Signals, tmp_path: Path) -> None:
    """Their server has a session of its own, so that nothing else ends it."""
    program = textwrap.dedent(
        """
        import signal, sys
        from orchestrator import tracking
        from orchestrator.cli import main

        signal.signal(signal.SIGHUP, signal.SIG_DFL)  # the tests may run below nohup
        served = "import os, time; print(os.getpid(), flush=True); time.sleep(600)"
        tracking.ui_command = lambda uri, port=None: [sys.executable, "-c", served, "--port", "5000"]
        sys.exit(main(["ui", "--tracking-uri", f"sqlite:///{sys.argv[1]}/mlflow.db"]))
        """
    )
    command = [sys.executable, "-c", program, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as started:
        assert started.stdout is not None
        server = int(next(line for line in started.stdout if line.strip().isdecimal()))
        started.send_signal(number)
        assert started.wait(30) == 0
    with pytest.raises(ProcessLookupError):
        os.kill(server, 0)


LEAVING = """
import atexit, sys, time

def tidy():
    print("tidying", flush=True)
    time.sleep(30)

atexit.register(tidy)  # as Ray does when it is imported
from orchestrator.cli.app import main
sys.exit(main(["--version"]))
"""


def test_a_ctrl_c_while_the_process_leaves_ends_it_without_a_traceback() -> None:
    leaving = subprocess.Popen(
        [sys.executable, "-c", LEAVING], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert leaving.stdout is not None
    while leaving.stdout.readline() != "tidying\n":
        assert leaving.poll() is None
    leaving.send_signal(signal.SIGINT)
    _, said = leaving.communicate(timeout=20)
    assert (leaving.returncode, said) == (130, "")
