"""How long a thread has not moved: the heartbeat of an engine, which takes steps, evaluates, loads, or hangs.

Steps alone would not tell: to evaluate a large split, to tokenise a task or to fetch a backbone takes minutes without
any. A thread that works is elsewhere in its program at almost every look; one that waits for a lock that nobody
gives back, or for a device that does not answer, is where it was.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable

# The function, and how far into it, of every call that the thread is in.
Place = tuple[tuple[int, int], ...]


class Standstill:
    """Looks at a thread now and then. A thread may look at another one, never at itself."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._seen: tuple[Place, object] | None = None
        self._since = clock()

    def seconds(self, thread_id: int, progress: object) -> float:
        """For how long every look has found the thread at one place with the same `progress`, such as its last step."""
        seen = (_place(thread_id), progress)
        if seen != self._seen:
            self._seen, self._since = seen, self._clock()
        return self._clock() - self._since

    def rests(self) -> float:
        """The thread has nothing to do, or waits for somebody else: it stands for as long as it likes."""
        self._seen = None
        return 0.0


def _place(thread_id: int) -> Place:
    frame = sys._current_frames().get(thread_id)
    found = []
    while frame is not None:
        found.append((id(frame.f_code), frame.f_lasti))
        frame = frame.f_back
    return tuple(found)
