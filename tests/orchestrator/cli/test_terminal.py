"""A sweep on a terminal that is interrupted by Ctrl-C, or whose terminal is closed."""

from __future__ import annotations

import os
import pty
import re
import select
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from adaptune import load_results
from orchestrator.store import Store
from tests.listening import with_descendants

pytestmark = [
    pytest.mark.ray,
    pytest.mark.timeout(300),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),  # of forking with threads: the child only executes
]

SWEEP = {"space": {"num_epochs": 8, "learning_rate": 1e-3, "batch_size": 4}, "seeds": [0, 1, 2]}
CONTROL = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


def run_on_a_terminal(sweep: str, end: Callable[[int, int], int | None]) -> tuple[int, str, list[int]]:
    """Exit status, what was shown, and all processes; `end` gets process and terminal once a trial has ended.

    It returns the terminal, or None where it has closed it.
    """
    process, terminal = pty.fork()
    if process == 0:
        signal.signal(signal.SIGHUP, signal.SIG_DFL)  # the tests may run below nohup
        os.execv(sys.executable, [sys.executable, "-m", "adaptune", "run", sweep])
    shown, store, deadline = b"", Store("sweeps/small"), time.monotonic() + 240
    family: list[int] = []
    open_terminal: int | None = terminal
    while time.monotonic() < deadline:
        if open_terminal is not None and select.select([open_terminal], [], [], 0.2)[0]:
            try:
                shown += os.read(open_terminal, 1 << 16)
            except OSError:  # the process has ended
                os.close(open_terminal)
                open_terminal = None
        elif open_terminal is None:
            time.sleep(0.2)
        if not family and store.exists() and store.statuses():
            family = with_descendants(process)
            open_terminal = end(process, terminal)
        ended, status = os.waitpid(process, os.WNOHANG)
        if ended:
            if open_terminal is not None:
                os.close(open_terminal)
            return os.waitstatus_to_exitcode(status), CONTROL.sub("", shown.decode()), family
    raise AssertionError(f"it did not end in time; shown was {CONTROL.sub('', shown.decode())}")


def press_ctrl_c(process: int, terminal: int) -> int:
    os.write(terminal, b"\x03")
    return terminal


def press_ctrl_c_twice(process: int, terminal: int) -> int:
    os.write(terminal, b"\x03")
    time.sleep(1)
    os.write(terminal, b"\x03")
    return terminal


def terminate_all(process: int, terminal: int) -> int:
    """As batch systems and service managers do: every process of the sweep gets SIGTERM, Ray's too."""
    os.killpg(process, signal.SIGTERM)
    return terminal


def close_it(process: int, terminal: int) -> None:
    os.close(terminal)


@pytest.mark.parametrize(
    ("end", "expected"),
    [
        (press_ctrl_c, 130),
        pytest.param(press_ctrl_c_twice, 130, marks=pytest.mark.thorough),
        pytest.param(terminate_all, 143, marks=pytest.mark.thorough),
    ],
)
def test_a_signal_ends_a_sweep_and_shows_nothing_of_ray(
    end: Callable[[int, int], int], expected: int, home: Path, write_sweep: Any
) -> None:
    status, shown, _ = run_on_a_terminal(write_sweep(**SWEEP), end)
    after = shown.partition("Interrupted: trials under way end with the epoch they are in.")[2]
    assert status == expected
    assert "go on with:  adaptune resume" in after
    words = re.compile(r"raylet|gcs|\.cc|core_worker|actor|retr(y|ies)|pid=|node", re.IGNORECASE)
    assert [line for line in after.splitlines() if words.search(line)] == []


@pytest.mark.thorough
def test_a_closed_terminal_ends_a_sweep_in_order_too(home: Path, write_sweep: Any) -> None:
    status, _, family = run_on_a_terminal(write_sweep(**SWEEP), close_it)
    assert status == 129
    store = Store("sweeps/small")
    statuses = {row["status"] for row in load_results("sweeps/small").trials().to_pylist()}
    assert statuses <= {"completed", "cancelled"}
    assert len(store.finished_ids()) < store.plan_table().num_rows
    assert Path("sweeps/small/report/report.html").exists()
    deadline = time.monotonic() + 30  # the last of Ray's processes end a moment after the driver
    while alive := [pid for pid in family if Path(f"/proc/{pid}").exists()]:
        assert time.monotonic() < deadline, alive
        time.sleep(0.2)
