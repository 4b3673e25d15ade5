"""How long a run may take, and how much of it each part may: what a part leaves over goes to those after it."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

Now = Callable[[], float]


class Deadline:
    """A point in time that whatever takes long is checked against before it begins."""

    def __init__(self, at: float, now: Now) -> None:
        self._at = at
        self._now = now

    def left(self) -> float:
        """Seconds until then, never negative."""
        return max(0.0, self._at - self._now())

    def has_passed(self) -> bool:
        return self.left() <= 0

    def allows(self, seconds: float) -> bool:
        """Whether something that takes this long would end in time."""
        return seconds < self.left()

    def within(self, share: float) -> Deadline:
        """An earlier one, after this share of what is left."""
        return Deadline(self._now() + share * self.left(), self._now)


class Budget:
    """The seconds of a whole run, divided among its parts.

    Args:
        limit_s: of the whole run.
        weights: of the parts, in their order.
        began_at: when the run began, on the same clock; None is now.
    """

    def __init__(
        self,
        limit_s: float,
        weights: Mapping[str, float],
        *,
        now: Now = time.monotonic,
        began_at: float | None = None,
    ) -> None:
        self._now = now
        self._waiting = dict(weights)
        began = now() if began_at is None else began_at
        self.whole = Deadline(began + limit_s, now)

    def begin(self, part: str) -> Deadline:
        """When a part that begins now must end: its share, by weight, of what is left for it and those after it."""
        share = self._waiting[part] / sum(self._waiting.values())
        del self._waiting[part]
        return self.whole.within(share)
