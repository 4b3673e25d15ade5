"""The autoscaler of engines: has as many as the cluster has room for and the plan can use, while both change."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import ray

from orchestrator.scheduling.engine_demand import engines_to_ask_for, engines_wanted, to_give_back
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
# Of the one engine with a GPU that is asked for where no node has any; of its node nothing is known yet.
FIRST_GPU_THREADS = 4
# Where no node may train anything, as beside a head without cores, it has so long to come before CPUs are asked for:
# trials that begin on CPUs stay there.
GPU_FIRST_S = 180.0

# How many trials the plan has left by pack key; None where the cluster cannot grow or shrink by itself.
Left = Callable[[], Mapping[str | None, int] | None]


@dataclass(eq=False)
class _Engine:
    """An engine and how it was laid out."""

    handle: Any
    num_gpus: float
    node: str | None = None  # the only one it may be on: of a helper, see `EngineAutoscaler`
    answer: Any = None  # to a first question, which comes once there is a node for it; None: nobody waits for that


class EngineAutoscaler:
    """Looks at the cluster again and again, makes engines for what has joined it, and tells the pool of them.

    Engines whose node has left are not ended: Ray starts them again when there is room, which also is what asks an
    autoscaler for a node in the place of one that was taken away. Belongs to the driver, with whom its engines end.

    Where the cluster grows by itself, engines are made beyond its room too, as many as the plan can still use: each
    waits in Ray for a node, which is what asks for one, and comes into the pool when it is there. As trials run out,
    those that wait are taken back, and idle ones end, so that their nodes can go.

    Args:
        pool: told of every engine at each look, since one that was started again knows none.
        engines: those there are; what is made is added, and what is gone for good taken out.
        layout: how they were laid out; of those that the cluster had room for then, it may leave some out.
        room: how engines would be laid out over what the cluster has now.
        make: makes as many engines as a layout says, on a node where one is named.
        left: what the plan has left.
        wants_gpus: whether trials are under way that would rather have a GPU; None where none is under way.
        helpers: how many engines without a GPU there is room for on each node without one, where others have GPUs.
        home: the driver's node.
        engines_per_gpu: how many share one.
    """

    def __init__(
        self,
        pool: Any,
        engines: list[Any],
        layout: EngineLayout,
        room: Callable[[], EngineLayout],
        make: Callable[[EngineLayout, int, str | None], list[Any]],
        *,
        left: Left = lambda: None,
        wants_gpus: Callable[[], bool | None] = lambda: False,
        helpers: Callable[[], Mapping[str, int]] = dict,
        home: str = "",
        engines_per_gpu: int = 1,
    ) -> None:
        self._pool = pool
        self._handles = engines
        self._room = room
        self._make = make
        self._left = left
        self._wants_gpus = wants_gpus
        self._helpers = helpers
        self._without_helpers: set[str | None] = set()  # nodes of which they were given back
        self._home = home
        self._engines_per_gpu = engines_per_gpu
        self._engines = [_Engine(handle, layout.num_gpus) for handle in engines]
        self._asked: list[_Engine] = []
        at_first = room()
        self._left_out = {at_first.num_gpus: at_first.count - layout.count}
        self._wait_s, self._not_before = FIRST_WAIT_S, 0.0
        self._gpu_asked_at: float | None = None
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="adaptune-engine-autoscaler", daemon=True)

    def __enter__(self) -> EngineAutoscaler:
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._ended.set()
        self._thread.join(END_S)
        _end(self._asked)

    def look(self) -> None:
        """Make the engines that the cluster has room for and the plan can use, and have the pool lend them all."""
        known = len(self._engines)
        self._drop(self._tell_pool())
        if len(self._engines) < known:
            self._not_before = time.monotonic() + self._wait_s
            self._wait_s = min(2 * self._wait_s, LONGEST_WAIT_S)
        layout, left = self._room(), self._left()
        wanted = None if left is None else engines_wanted(left, layout)
        self._take_in_asked()
        if time.monotonic() >= self._not_before and not self._ended.is_set():
            self._make_lacking(layout, wanted)
            self._make_helpers()
        if wanted is not None:
            self._follow_plan(layout, wanted)
        if len(self._engines) > known:
            self._tell_pool()

    def _run(self) -> None:
        while not self._ended.wait(LOOK_EVERY_S):
            try:
                self.look()
            except Exception:  # the pool is being started again, or the cluster does not answer just now
                logger.debug("the cluster could not be looked at", exc_info=True)

    def _tell_pool(self) -> list[int]:
        helpers = [place for place, engine in enumerate(self._engines) if self._is_helper(engine)]
        return list(ray.get(self._pool.keep.remote(self._handles, helpers), timeout=ANSWER_S))

    def _is_helper(self, engine: _Engine) -> bool:
        return not engine.num_gpus and any(other.num_gpus for other in self._engines)

    def _make_lacking(self, layout: EngineLayout, wanted: int | None) -> None:
        kind = layout.num_gpus
        room = layout.count - self._left_out.get(kind, 0)
        there = self._count(kind)
        lacking = (room if wanted is None else min(room, wanted)) - there
        # What was asked for fills the room that it caused.
        lacking -= sum(engine.num_gpus == kind for engine in self._asked)
        if lacking > 0:
            logger.info("the cluster has room for %d more engines", lacking)
            self._add([_Engine(handle, kind) for handle in self._make(layout, lacking, None)])

    def _make_helpers(self) -> None:
        for node, room in self._helpers().items() if any(engine.num_gpus for engine in self._engines) else ():
            lacking = room - sum(not engine.num_gpus for engine in self._engines if engine.node in (node, None))
            if lacking > 0 and node not in self._without_helpers:
                layout = EngineLayout(count=room, num_gpus=0, num_threads=1)
                self._add([_Engine(handle, 0, node) for handle in self._make(layout, lacking, node)])

    def _follow_plan(self, layout: EngineLayout, wanted: int) -> None:
        """Ask for what the plan can use beyond the room there is, and end what it can use no more."""
        kind = layout.num_gpus
        more = engines_to_ask_for(
            wanted=wanted,
            room=layout.count,
            there=self._count(kind),
            asked=sum(engine.num_gpus == kind for engine in self._asked),
        )
        if not kind and wanted and self._wants_gpus() and not any(engine.num_gpus for engine in self._asked):
            # A cluster may have no node with a GPU before one is asked for.
            share = 1 / self._engines_per_gpu
            self._gpu_asked_at = self._gpu_asked_at or time.monotonic()
            self._ask(EngineLayout(count=1, num_gpus=share, num_threads=FIRST_GPU_THREADS), 1)
        if more > 0 and not self._ended.is_set() and not self._waits_for_gpu(layout):
            self._ask(layout, more)
        if more < 0:
            unneeded = [engine for engine in self._asked if engine.num_gpus == kind][more:]
            self._asked = [engine for engine in self._asked if engine not in unneeded]
            _end(unneeded)
        if not wanted:
            _end(self._asked)
            self._asked = []
        self._give_back(wanted)

    def _waits_for_gpu(self, layout: EngineLayout) -> bool:
        """Whether nothing can train yet and a GPU may still come."""
        if layout.count:
            return False
        if self._gpu_asked_at is None:
            return self._wants_gpus() is None  # what trials want is known once one is under way
        return time.monotonic() < self._gpu_asked_at + GPU_FIRST_S

    def _ask(self, layout: EngineLayout, count: int) -> None:
        logger.info("the plan can use %d more engines than the cluster has room for", count)
        for handle in self._make(layout, count, None):
            self._asked.append(_Engine(handle, layout.num_gpus, answer=handle.process_id.remote()))

    def _take_in_asked(self) -> None:
        came = [engine for engine in self._asked if ray.wait([engine.answer], timeout=0)[0]]
        self._asked = [engine for engine in self._asked if engine not in came]
        self._add(came)

    def _give_back(self, wanted: int) -> None:
        idle = ray.get(self._pool.idle.remote(self._handles), timeout=ANSWER_S)
        surplus = to_give_back(idle, wanted=wanted, there=len(self._engines), home=self._home)
        if not surplus:
            return
        # A trial may have come for one of them meanwhile.
        ended = ray.get(self._pool.retire.remote([self._handles[place] for place in surplus]), timeout=ANSWER_S)
        places = [place for place, was_ended in zip(surplus, ended, strict=True) if was_ended]
        logger.info("%d engines are idle and given back", len(places))
        self._without_helpers.update(self._engines[place].node for place in places)
        _end([self._engines[place] for place in places])
        self._drop(places)

    def _count(self, num_gpus: float) -> int:
        return sum(engine.num_gpus == num_gpus for engine in self._engines)

    def _add(self, engines: list[_Engine]) -> None:
        self._engines += engines
        self._handles += [engine.handle for engine in engines]

    def _drop(self, places: list[int]) -> None:
        for place in sorted(places, reverse=True):
            del self._engines[place], self._handles[place]


def _end(engines: list[_Engine]) -> None:
    for engine in engines:
        ray.kill(engine.handle)
