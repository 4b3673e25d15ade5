"""Notice that a machine or a process is about to go: how it comes, and what can still be finished. Needs no Ray."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable

from trainables.outcome import EpochReport

# What an engine's process leaves itself after SIGTERM: Kubernetes and most clouds kill after thirty seconds or later.
NOTICE_S = 25.0
# A trial whose end is expected this close to the deadline would too often not reach it.
MARGIN_S = 2.0


def will_end(last: EpochReport | None, num_epochs: int, *, since_s: float, left_s: float) -> bool:
    """Whether a trial ends in the time that is left, its epochs lasting as long as the last one did.

    A trial begins anew elsewhere, so that one which will not end had better do so at once. One that has no epoch yet
    will not, as far as anybody knows. `since_s`: how long ago its last epoch ended.
    """
    if last is None:
        return False
    return (num_epochs - last.epoch) * last.duration_s - since_s + MARGIN_S <= left_s


def seconds_left(deadline: float) -> float:
    """Until a deadline in seconds since the epoch; of one that nobody named (0), as long as a notice usually is."""
    return max(0.0, deadline - time.time()) if deadline else NOTICE_S


def on_sigterm(told: Callable[[], None]) -> None:
    """Have a thread call this once SIGTERM comes, whatever the main thread is at. To be called from the main thread.

    Python runs handlers of signals between two of its own steps in the main thread, which in a process of Ray's waits
    outside of Python for as long as it lives. The number of the signal is written to a pipe at once.
    """
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    signal.signal(signal.SIGTERM, lambda number, frame: None)
    signal.set_wakeup_fd(writer, warn_on_full_buffer=False)

    def wait() -> None:
        while signal.SIGTERM not in os.read(reader, 64):
            pass
        told()

    threading.Thread(target=wait, name="adaptune-sigterm", daemon=True).start()
