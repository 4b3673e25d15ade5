"""What ends a sweep early: signals, a closed terminal, budgets. No Ray is started here."""

from __future__ import annotations

import math
import os
import pty
import signal
import subprocess
import sys
import time

import pytest

from orchestrator.scheduling import early_end
from orchestrator.scheduling.early_end import (
    PATIENCE_S,
    Budget,
    EarlyEnd,
    Interrupt,
    Interrupted,
    Spending,
    Watch,
    endings_blocked,
    endings_raised,
)
from trainables.faults import FaultsError


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_second_interrupt_is_obeyed_at_once(number: signal.Signals) -> None:
    before = signal.getsignal(number)
    with Interrupt() as interrupt:
        assert not interrupt.came
        signal.raise_signal(signal.SIGINT)
        assert interrupt.number == signal.SIGINT
        with pytest.raises(Interrupted) as raised:
            signal.raise_signal(number)
        assert raised.value.number == number
    assert signal.getsignal(number) is before


def test_after_a_hangup_the_terminal_is_left_alone_and_a_second_one_says_nothing_new() -> None:
    script = (
        "import os, signal\n"
        "from orchestrator.scheduling.early_end import Interrupt\n"
        "signal.signal(signal.SIGHUP, signal.SIG_DFL)\n"  # the tests may run below nohup
        "with Interrupt() as interrupt:\n"
        "    print('before', flush=True)\n"
        "    for _ in range(3): signal.raise_signal(signal.SIGHUP)\n"
        "    print('after', flush=True)\n"
        "    assert interrupt.number == signal.SIGHUP\n"
    )
    terminal, end = pty.openpty()
    with subprocess.Popen([sys.executable, "-c", script], stdout=end, stderr=end) as child:
        os.close(end)
        assert child.wait(timeout=60) == 0
    assert os.read(terminal, 1000).strip() == b"before"
    os.close(terminal)


def test_below_nohup_a_hangup_is_still_ignored() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with Interrupt() as interrupt:
            signal.raise_signal(signal.SIGHUP)
            assert not interrupt.came
    finally:
        signal.signal(signal.SIGHUP, before)


def test_before_and_after_the_trials_a_signal_ends_the_sweep_as_ctrl_c_does() -> None:
    before = {number: signal.signal(number, signal.SIG_DFL) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        with endings_raised():
            for number in before:
                with pytest.raises(Interrupted) as raised:
                    signal.raise_signal(number)
                assert raised.value.number == number
            with Interrupt() as interrupt:
                signal.raise_signal(signal.SIGHUP)
            assert interrupt.came
            signal.raise_signal(signal.SIGHUP)  # the kernel's, after the shell's
        assert all(signal.getsignal(number) is signal.SIG_DFL for number in before)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def test_an_interrupt_within_a_finaliser_is_raised_after_it(capfd: pytest.CaptureFixture[str]) -> None:
    class Interrupting:
        def __del__(self) -> None:
            signal.raise_signal(signal.SIGINT)

    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    hook = sys.unraisablehook
    try:
        with endings_raised(), endings_raised():  # the command line's, and the sweep's
            Interrupting()
            with pytest.raises(KeyboardInterrupt):
                time.sleep(30)
        assert sys.unraisablehook is hook
    finally:
        signal.signal(signal.SIGINT, before)
    assert capfd.readouterr() == ("", "")


def test_what_is_started_meanwhile_outlives_the_signals_that_end_this_process() -> None:
    came: list[int] = []
    before = {number: signal.signal(number, lambda n, _: came.append(n)) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        with endings_blocked():
            child = subprocess.Popen([sys.executable, "-c", "import sys; sys.stdin.read()"], stdin=subprocess.PIPE)
            signal.raise_signal(signal.SIGTERM)
            assert came == []
        assert came == [signal.SIGTERM]
        with child:
            for number in before:
                child.send_signal(number)
            with pytest.raises(subprocess.TimeoutExpired):
                child.wait(timeout=0.5)
            child.communicate()
        assert child.returncode == 0
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@pytest.mark.parametrize(
    ("hours", "failures", "faults"),
    [(0.0, 0, 2), (-1.0, None, 1), (float("nan"), 1, 1), (float("inf"), None, 1), (None, -3, 1), (0.001, 1, 0)],
)
def test_a_budget_that_is_none_is_refused_with_all_its_faults(
    hours: float | None, failures: int | None, faults: int
) -> None:
    if not faults:
        Budget(max_hours=hours, max_failures=failures)
        return
    with pytest.raises(FaultsError) as refusal:
        Budget(max_hours=hours, max_failures=failures)
    assert len(refusal.value.faults) == faults


def test_a_budget_is_used_up_by_hours_or_by_failures(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [1000.0]
    monkeypatch.setattr(early_end.time, "monotonic", lambda: now[0])
    spending = Spending(Budget(max_hours=2.5, max_failures=2))
    now[0] += 2.5 * 3600 - 1
    spending.trial_failed()
    assert spending.used_up() is None
    spending.trial_failed()
    assert spending.used_up() == "--max-failures 2"
    now[0] += 1
    assert spending.used_up() == "--max-hours 2.5"
    assert Spending(Budget()).used_up() is None


def test_a_budget_of_money_counts_the_devices_that_are_there(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [1000.0]
    monkeypatch.setattr(early_end.time, "monotonic", lambda: now[0])
    spending = Spending(Budget(max_cost=10, price=2))
    now[0] += 3600
    assert (spending.cost, spending.used_up()) == (0.0, None)  # no device yet
    spending.devices_there(4)
    now[0] += 1800
    spending.devices_there(2)  # a node has left
    now[0] += 3600
    assert spending.cost == pytest.approx(2 * (4 * 0.5 + 2))
    assert spending.used_up() is None
    now[0] += 1800
    assert spending.used_up() == "--max-cost 10"


def test_a_storage_that_fails_is_waited_for_a_while_beyond_a_budget_and_not_after_a_signal(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = [1000.0]
    monkeypatch.setattr(early_end.time, "monotonic", lambda: now[0])
    interrupt = Interrupt()
    watch = Watch(interrupt, Spending(Budget(max_hours=1)))
    assert not watch.waits_no_more()
    now[0] += 3600
    assert not watch.waits_no_more()
    now[0] += PATIENCE_S - 1
    assert not watch.waits_no_more()
    now[0] += 1
    assert watch.waits_no_more()
    assert watch.came_early(has_trials_left=True) == EarlyEnd(budget="--max-hours 1")
    without_budget = Watch(interrupt, Spending(Budget()))
    assert not without_budget.waits_no_more()
    interrupt.number = signal.SIGINT
    assert without_budget.waits_no_more()


@pytest.mark.parametrize(
    ("cost", "price", "said"),
    [
        (5, None, ["max_cost comes without price"]),
        (None, 1, ["price comes without max_cost"]),
        (0, -1, ["max_cost must be an amount", "price must be that of one GPU"]),
        (math.nan, math.inf, ["max_cost must be", "price must be"]),
    ],
)
def test_a_budget_of_money_is_an_amount_with_a_price(cost: float | None, price: float | None, said: list[str]) -> None:
    with pytest.raises(FaultsError) as refusal:
        Budget(max_cost=cost, price=price)
    assert len(refusal.value.faults) == len(said)
    assert all(part in fault for part, fault in zip(said, refusal.value.faults, strict=True))


def test_what_comes_first_is_the_reason_and_a_budget_without_trials_left_is_none() -> None:
    interrupt, spending = Interrupt(), Spending(Budget(max_failures=1))
    watch = Watch(interrupt, spending)
    assert watch.look() is None
    spending.trial_failed()
    assert watch.came_early(has_trials_left=True) is None  # nobody looked: it has ended nothing
    (end,) = {watch.look()}
    assert end is not None
    assert end.budget == "--max-failures 1"
    assert "--max-failures 1 is used up" in end.notice
    assert watch.came_early(has_trials_left=True) is end
    assert watch.came_early(has_trials_left=False) is None
    interrupt.number = signal.SIGTERM
    assert watch.look() is end
    other = Watch(interrupt, Spending(Budget()))
    late = other.came_early(has_trials_left=False)
    assert late is not None
    assert late.signal == signal.SIGTERM
