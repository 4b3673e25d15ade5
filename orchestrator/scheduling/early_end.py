"""What ends a sweep before its trials have ended, in order: a signal, or a budget that is used up. Needs no Ray."""

from __future__ import annotations

import contextlib
import logging
import math
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from trainables.faults import FaultsError

logger = logging.getLogger(__name__)

# Sent when the terminal is closed or the connection to it breaks; Windows has none.
SIGHUP: int | None = getattr(signal, "SIGHUP", None)
_MOMENT_S = 0.05  # in which a finaliser ends
PATIENCE_S = 600.0  # with a storage that fails, beyond the end of a budget
_UNDER_WAY = "trials under way end with the epoch they are in."


@dataclass(frozen=True, kw_only=True)
class EarlyEnd:
    """Why a sweep ended with trials left: one of the two."""

    signal: int | None = None  # its number
    budget: str | None = None  # what was used up, as the command line calls it

    @property
    def notice(self) -> str:
        """What the user is told when it begins."""
        if self.budget is not None:
            return f"The budget {self.budget} is used up: {_UNDER_WAY}"
        return f"Interrupted: {_UNDER_WAY} Interrupt again to end at once."


class Interrupted(KeyboardInterrupt):
    """A signal by which the user wants the end at once."""

    def __init__(self, number: int, *words: str) -> None:
        """`number`: the signal's; `words`: what the user should know of it."""
        super().__init__(*words)
        self.number = number


class Interrupt:
    """Catches the first SIGINT (Ctrl-C), SIGTERM or SIGHUP as a wish to end well; a second one raises `Interrupted`.

    After SIGHUP nothing is written to the terminal, which is gone, and further ones say nothing new: the shell and the
    kernel may both send it. Where it is ignored, as below nohup, it stays so.
    """

    def __init__(self) -> None:
        self.number: int | None = None  # of the signal that came
        self._has_hung_up = False
        self._caught = contextlib.ExitStack()

    def __enter__(self) -> Interrupt:
        self._terminals = _terminals()
        self._caught.enter_context(_caught(self._handle, signal.SIGINT, signal.SIGTERM, SIGHUP))
        return self

    def __exit__(self, *exception: object) -> None:
        self._caught.close()
        if self._has_hung_up and SIGHUP is not None:
            signal.signal(SIGHUP, signal.SIG_IGN)  # the other one may come yet

    @property
    def came(self) -> bool:
        return self.number is not None

    def _handle(self, number: int, frame: object) -> None:
        if number == SIGHUP:
            self._has_hung_up = True
            _leave(self._terminals)
        if not self.came:
            self.number = number
        elif number != SIGHUP:
            raise Interrupted(number)


@contextmanager
def endings_raised() -> Iterator[None]:
    """SIGTERM and SIGHUP raise `Interrupted`, as SIGINT raises `KeyboardInterrupt`, so that nothing is left as it is.

    It goes around `Interrupt`, for what comes before the trials and after them, and around what trains nothing.
    """
    terminals = _terminals()

    def end(number: int, frame: object) -> None:
        if number == SIGHUP:
            _leave(terminals)
        raise Interrupted(number)

    with _caught(end, signal.SIGTERM, SIGHUP), _raised_again():
        yield


@contextmanager
def _raised_again() -> Iterator[None]:
    """An interrupt that comes within a finaliser is sent once more, a moment later.

    Python cannot raise what comes there: it would be lost, and its traceback shown to the user.
    """
    before = sys.unraisablehook

    def again(lost: Any) -> None:  # typeshed's name of the class is no public one
        if issubclass(lost.exc_type, KeyboardInterrupt):
            number = getattr(lost.exc_value, "number", signal.SIGINT)
            timer = threading.Timer(_MOMENT_S, os.kill, (os.getpid(), number))
            timer.daemon = True
            timer.start()
        else:
            before(lost)

    sys.unraisablehook = again
    try:
        yield
    finally:
        sys.unraisablehook = before


@contextmanager
def _caught(handle: Callable[[int, Any], None], *numbers: int | None) -> Iterator[None]:
    """Signals go to a handler. Where SIGHUP is ignored, as below nohup, it stays so."""
    previous: dict[int, Any] = {}
    try:
        for number in numbers:
            if number is not None and not (number == SIGHUP and signal.getsignal(number) is signal.SIG_IGN):
                previous[number] = signal.signal(number, handle)
    except ValueError:
        logger.debug("not in the main thread: signals are left to the caller")
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def _terminals() -> list[int]:
    return [descriptor for descriptor in (1, 2) if os.isatty(descriptor)]


def _leave(terminals: Sequence[int]) -> None:
    """Whatever is written to a terminal that is gone would fail."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for descriptor in terminals:
        os.dup2(nowhere, descriptor)
    os.close(nowhere)


@contextmanager
def endings_blocked() -> Iterator[None]:
    """Processes that are started meanwhile, and those that they start, are deaf to SIGTERM and SIGHUP.

    A closed terminal, `timeout`, a batch system or a service manager sends these to every process of a program. What
    one process wants to end in order, the others must outlive; how they end is then for that one to see to. A signal
    that comes to this process meanwhile comes when the context ends.
    """
    if SIGHUP is None:
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {SIGHUP, signal.SIGTERM})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@dataclass(frozen=True, kw_only=True)
class Budget:
    """How much one run of a sweep may use before it ends, in order and with trials left. None is no limit."""

    max_hours: float | None = None  # from the start of the run
    max_failures: int | None = None  # failed trials
    max_cost: float | None = None  # of the GPUs with engines, else of the CPU engines, at `price` for one and an hour
    price: float | None = None

    def __post_init__(self) -> None:
        faults = []
        if self.max_cost is not None and not 0 < self.max_cost < math.inf:
            faults.append(f"max_cost must be an amount above 0, but got {self.max_cost}")
        if self.price is not None and not 0 < self.price < math.inf:
            rule = "price must be that of one GPU, or of one CPU engine, for one hour and above 0"
            faults.append(f"{rule}, but got {self.price}")
        if (self.max_cost is None) is not (self.price is None):
            given, lacking = ("max_cost", "price") if self.price is None else ("price", "max_cost")
            faults.append(f"max_cost and price must come together, but {given} comes without {lacking}")
        if self.max_hours is not None and not 0 < self.max_hours < math.inf:
            faults.append(f"max_hours must be a number of hours above 0, but got {self.max_hours}")
        if self.max_failures is not None and self.max_failures < 1:
            faults.append(f"max_failures must be at least 1 failed trial, but got {self.max_failures}")
        if faults:
            raise FaultsError("budget", faults)


NO_LIMIT = Budget()


class Spending:
    """What a run has used of its budget."""

    def __init__(self, budget: Budget) -> None:
        """The run begins now."""
        self._budget = budget
        self._began = self._counted_until = time.monotonic()
        self._failures = 0
        self._devices = 0.0
        self._device_s = 0.0

    def trial_failed(self) -> None:
        self._failures += 1

    def devices_there(self, count: float) -> None:
        """So many devices are paid from now on, until another number is told."""
        self._count()
        self._devices = count

    def used_up(self) -> str | None:
        """The budget that is used up, as the command line calls it; None while there is something of each left."""
        hours, failures, cost = self._budget.max_hours, self._budget.max_failures, self._budget.max_cost
        if hours is not None and time.monotonic() - self._began >= hours * 3600:
            return f"--max-hours {hours:g}"
        if failures is not None and self._failures >= failures:
            return f"--max-failures {failures}"
        if cost is not None and self.cost >= cost:
            return f"--max-cost {cost:g}"
        return None

    @property
    def cost(self) -> float:
        """Of the devices until now; 0 where no price is known."""
        self._count()
        return self._device_s / 3600 * (self._budget.price or 0.0)

    def _count(self) -> None:
        now = time.monotonic()
        self._device_s += (now - self._counted_until) * self._devices
        self._counted_until = now


class Watch:
    """Looks whether a sweep is to end early. What it sees first stays the reason."""

    def __init__(self, interrupt: Interrupt, spending: Spending) -> None:
        self._interrupt = interrupt
        self._spending = spending
        self._seen: EarlyEnd | None = None
        self._seen_at = 0.0

    def look(self) -> EarlyEnd | None:
        """Why the sweep is to end; None while it goes on."""
        if self._seen is None:
            if self._interrupt.came:
                self._seen = EarlyEnd(signal=self._interrupt.number)
            elif (budget := self._spending.used_up()) is not None:
                self._seen = EarlyEnd(budget=budget)
            self._seen_at = time.monotonic()
        return self._seen

    def waits_no_more(self) -> bool:
        """Whether a storage that fails is waited for no longer: after a signal, or some time after the budget's end.

        What was trained is worth a while, a full disk or a lost connection being mended, and not all that a budget was
        to save.
        """
        if self._interrupt.came:
            return True
        return self.look() is not None and time.monotonic() - self._seen_at >= PATIENCE_S

    def came_early(self, *, has_trials_left: bool) -> EarlyEnd | None:
        """Why a sweep that is over was ended. A budget used up by its last trials has ended nothing."""
        if self._interrupt.came:
            return self._seen or self.look()
        return self._seen if has_trials_left else None
