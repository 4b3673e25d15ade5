"""A thread that has not moved is told from one that works, in real threads."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from orchestrator.scheduling.standstill import Standstill


class Clock:
    """Time that passes at each look."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@contextmanager
def thread(target: Callable[[threading.Event], None]) -> Iterator[int]:
    """The id of a thread that runs until the event it is given is set."""
    ends = threading.Event()
    running = threading.Thread(target=target, args=(ends,))
    running.start()
    time.sleep(0.05)
    try:
        assert running.ident is not None
        yield running.ident
    finally:
        ends.set()
        running.join()


def looks(thread_id: int, *progress: object, every_s: float = 10.0) -> list[float]:
    """What looks in a row say, one for each `progress`."""
    clock = Clock()
    standstill = Standstill(clock)
    found = []
    for each in progress:
        found.append(standstill.seconds(thread_id, each))
        clock.now += every_s
    return found


def test_a_thread_that_waits_stands_still_for_as_long_as_it_does() -> None:
    with thread(lambda ends: ends.wait() and None) as waiting:
        assert looks(waiting, "a", "a", "a") == [0.0, 10.0, 20.0]


def test_a_step_is_progress_wherever_the_thread_is() -> None:
    with thread(lambda ends: ends.wait() and None) as waiting:
        assert looks(waiting, "a", "a", "b", "b") == [0.0, 10.0, 0.0, 10.0]


def test_a_thread_that_works_moves_without_any_step() -> None:
    def work(ends: threading.Event) -> None:
        total = 0
        while not ends.is_set():
            for number in range(100):
                total += number
                total ^= number

    clock = Clock()
    standstill = Standstill(clock)
    with thread(work) as working:
        for _ in range(3):
            while True:  # at worst it is seldom its turn
                clock.now += 10.0
                time.sleep(0.002)
                if standstill.seconds(working, "a") == 0.0:
                    break


def test_a_thread_that_rested_begins_anew() -> None:
    clock = Clock()
    standstill = Standstill(clock)
    with thread(lambda ends: ends.wait() and None) as waiting:
        standstill.seconds(waiting, "a")
        clock.now = 1000.0
        assert standstill.rests() == 0.0
        assert standstill.seconds(waiting, "a") == 0.0
