"""Notices that a machine is about to go: what can still end, and how SIGTERM is heard."""

from __future__ import annotations

import os
import signal
import threading
import time

import pytest

from orchestrator.scheduling.notice import MARGIN_S, NOTICE_S, on_sigterm, seconds_left, will_end
from tests.factories import epoch_report


@pytest.mark.parametrize(
    ("reported", "since_s", "left_s", "expected"),
    [
        (None, 100.0, 1000.0, False),  # nobody knows how long its epochs are
        (9, 0.0, 1.0 + MARGIN_S, True),
        (9, 0.0, 0.9 + MARGIN_S, False),
        (9, 0.5, 0.5 + MARGIN_S, True),
        (2, 0.0, 7.0, False),
    ],
)
def test_a_trial_is_left_to_end_where_its_last_epoch_says_that_it_will(
    reported: int | None, since_s: float, left_s: float, expected: bool
) -> None:
    last = None if reported is None else epoch_report(reported, duration_s=1.0)
    assert will_end(last, 10, since_s=since_s, left_s=left_s) is expected


def test_a_deadline_is_counted_down_and_one_that_nobody_named_is_the_usual_one() -> None:
    assert seconds_left(0) == NOTICE_S
    assert 9 < seconds_left(time.time() + 10) <= 10
    assert seconds_left(time.time() - 10) == 0


def test_sigterm_is_heard_whatever_the_main_thread_is_at() -> None:
    before, heard = signal.getsignal(signal.SIGTERM), threading.Event()
    try:
        on_sigterm(heard.set)
        os.kill(os.getpid(), signal.SIGTERM)
        assert heard.wait(5)
    finally:
        os.close(signal.set_wakeup_fd(-1))
        signal.signal(signal.SIGTERM, before)
