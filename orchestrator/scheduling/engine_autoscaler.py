"""The autoscaler: has as many engines as the cluster has room for, while it grows and shrinks."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from typing import Any

import ray

from orchestrator.scheduling.engine_layout import EngineLayout

logger = logging.getLogger(__name__)

# Between two looks at the cluster, and thus until a pool that was started again knows its engines.
LOOK_EVERY_S = 1.0
# Before an engine that could not be started is made anew; twice as long each time.
FIRST_WAIT_S, LONGEST_WAIT_S = 3.0, 60.0
# Until the pool answers, where it is not being started again.
ANSWER_S = 30.0
# At the end, what it waits for may never come.
END_S = 5.0


class EngineAutoscaler:
    """Looks at the cluster again and again, makes engines for what has joined it, and tells the pool of them.

    Engines whose node has left are not ended: Ray starts them again when there is room, which also is what asks an
    autoscaler for a node in the place of one that was taken away. Belongs to the driver, with whom its engines end.

    Args:
        pool: told of every engine at each look, since one that was started again knows none.
        engines: those there are; what is made is added, and what is gone for good taken out.
        layout: how they were laid out; of those that the cluster had room for then, it may leave some out.
        room: how engines would be laid out over what the cluster has now.
        make: makes as many engines as a layout says.
    """

    def __init__(
        self,
        pool: Any,
        engines: list[Any],
        layout: EngineLayout,
        room: Callable[[], EngineLayout],
        make: Callable[[EngineLayout, int], list[Any]],
    ) -> None:
        self._pool = pool
        self._engines = engines
        self._room = room
        self._make = make
        self._kinds = [layout.num_gpus] * len(engines)  # the GPUs of each engine
        at_first = room()
        self._left_out = {at_first.num_gpus: at_first.count - layout.count}
        self._wait_s, self._not_before = FIRST_WAIT_S, 0.0
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="adaptune-engine-autoscaler", daemon=True)

    def __enter__(self) -> EngineAutoscaler:
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._ended.set()
        self._thread.join(END_S)

    def look(self) -> None:
        """Make the engines that the cluster has room for, and have the pool lend them all."""
        for place in sorted(ray.get(self._pool.keep.remote(self._engines), timeout=ANSWER_S), reverse=True):
            del self._engines[place], self._kinds[place]
            self._not_before = time.monotonic() + self._wait_s
            self._wait_s = min(2 * self._wait_s, LONGEST_WAIT_S)
        layout = self._room()
        kind = layout.num_gpus
        lacking = layout.count - self._left_out.get(kind, 0) - self._kinds.count(kind)
        if lacking <= 0 or time.monotonic() < self._not_before or self._ended.is_set():
            return
        logger.info("the cluster has room for %d more engines", lacking)
        self._engines += self._make(layout, lacking)
        self._kinds += [kind] * lacking
        ray.get(self._pool.keep.remote(self._engines), timeout=ANSWER_S)

    def _run(self) -> None:
        while not self._ended.wait(LOOK_EVERY_S):
            try:
                self.look()
            except Exception:  # the pool is being started again, or the cluster does not answer just now
                logger.debug("the cluster could not be looked at", exc_info=True)
