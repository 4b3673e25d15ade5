"""How long engines take for the trials of a sweep, played through: which packs form, who waits, who is left alone.

Follows what `orchestrator.scheduling.pool` does: so many trials are under way, in the order of the plan; one that can
join a pack does; an engine that stands idle takes the oldest that wait, with all that can join them, but those of the
backbone that it has loaded before all others.
"""

from __future__ import annotations

import functools
import heapq
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

# From the end of a trial to the first step of the one that Ray Tune starts in its place.
DISPATCH_S = 0.3


@dataclass(frozen=True, kw_only=True)
class Load:
    """What one trial asks of an engine, in seconds.

    Args:
        key: equal for trials that can train in one pack; None trains alone.
        num_steps: of the trial; a step of a pack of K takes `fixed_s` and each trial's `trial_s`.
        own_s: what the engine does for this trial alone, spread over its steps: evaluations, building its model.
        limit: the most trials its pack may hold.
        once: names of what an engine does at the first trial that needs it, with the seconds of each.
        backbone: what an engine must have loaded, if anything; the seconds of its first one are in its start.
        load_s: seconds of changing to that backbone from another one.
    """

    key: str | None
    num_steps: float
    fixed_s: float
    trial_s: float
    own_s: float
    limit: int = 1
    once: tuple[tuple[str, float], ...] = ()
    backbone: str = ""
    load_s: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Makespan:
    """What came of playing it through."""

    seconds: float  # from the first trial's start to the last one's end
    busy_s: float  # of all engines together
    packs: int  # how often an idle engine began one
    mean_pack_size: float  # trials that train together, over the time that engines train


@dataclass(eq=False)
class _Engine:
    """An engine as it goes. `clock` is when its trials were last brought up to date."""

    clock: float = 0.0
    busy_s: float = 0.0
    trials: dict[int, float] = field(default_factory=dict)  # number -> steps that are left
    key: str | None = None
    limit: int = 1
    debt_s: float = 0.0  # what has to be done before the next step
    done_once: set[str] = field(default_factory=set)
    backbone: str | None = None

    def round_s(self, loads: Sequence[Load]) -> float:
        """Of one step of all its trials, each one's share of its own work included."""
        each = [loads[number] for number in self.trials]
        return each[0].fixed_s + sum(load.trial_s + load.own_s / load.num_steps for load in each)

    def advance(self, now: float, loads: Sequence[Load]) -> None:
        """Train until now."""
        passed, self.clock = now - self.clock, now
        if not self.trials:
            return
        self.busy_s += passed
        paid = min(passed, self.debt_s)
        self.debt_s -= paid
        steps = (passed - paid) / max(self.round_s(loads), 1e-12)
        for number in self.trials:
            self.trials[number] -= steps

    def next_end(self, loads: Sequence[Load]) -> float:
        """When the first of its trials ends, should none join."""
        return self.clock + self.debt_s + max(0.0, min(self.trials.values())) * self.round_s(loads)

    def takes(self, load: Load) -> bool:
        if not self.trials:
            return True
        return load.key is not None and load.key == self.key and len(self.trials) < self.limit

    def take(self, number: int, load: Load) -> None:
        self.key, self.limit = load.key, load.limit
        self.trials[number] = load.num_steps
        if load.backbone and load.backbone != self.backbone:
            self.debt_s += 0.0 if self.backbone is None else load.load_s
            self.backbone = load.backbone
            self.done_once.clear()  # what was computed with the one before is gone
        for name, seconds in load.once:
            if name not in self.done_once:
                self.done_once.add(name)
                self.debt_s += seconds


def play(
    loads: Iterable[Load], *, engines: int, concurrent: int | None = None, dispatch_s: float = DISPATCH_S
) -> Makespan:
    """Train all loads on so many engines, at most `concurrent` under way at once; None: as many as there are."""
    waiting_to_start = deque(enumerate(every := list(loads)))
    pool = [_Engine() for _ in range(max(1, engines))]
    arrivals = [(0.0, number) for number, _ in _take(waiting_to_start, concurrent or len(every))]
    waiting: dict[int, Load] = {}  # those that are under way without an engine, the oldest first
    packs, trial_s, now = 0, 0.0, 0.0
    while arrivals or any(engine.trials for engine in pool):
        ends = [(engine.next_end(every), place) for place, engine in enumerate(pool) if engine.trials]
        end_at, place = min(ends, default=(float("inf"), 0))
        then = min(end_at, arrivals[0][0]) if arrivals else end_at
        trial_s += sum((then - now) * len(engine.trials) for engine in pool)
        now = then
        for engine in pool:
            engine.advance(now, every)
        if arrivals and arrivals[0][0] <= now:
            _, number = heapq.heappop(arrivals)
            waiting[number] = every[number]
        else:
            ended = min(pool[place].trials, key=lambda number: pool[place].trials[number])
            del pool[place].trials[ended]
            for number, _ in _take(waiting_to_start, 1):
                heapq.heappush(arrivals, (now + dispatch_s, number))
        packs += _lend(pool, waiting)
    busy_s = sum(engine.busy_s for engine in pool)
    return Makespan(seconds=now, busy_s=busy_s, packs=packs, mean_pack_size=trial_s / busy_s if busy_s else 0.0)


def _take(queue: deque[tuple[int, Load]], count: int) -> list[tuple[int, Load]]:
    return [queue.popleft() for _ in range(min(count, len(queue)))]


def _lend(pool: Sequence[_Engine], waiting: dict[int, Load]) -> int:
    """Give those that wait what engines can take them, as the pool does; returns how many packs were begun."""
    begun = 0
    for may_leave_work in (False, True):
        awaited = set() if may_leave_work else {load.backbone for load in waiting.values()}
        refused: set[tuple[str, str | None]] = set()
        for number, load in list(waiting.items()):
            kind = load.backbone, load.key
            if kind in refused:
                continue
            kept = awaited - {load.backbone, ""}
            able = [engine for engine in pool if engine.takes(load) and engine.backbone not in kept]
            if not able:
                refused.add(kind)
                continue
            engine = min(able, key=functools.partial(_preference, load.backbone))
            begun += not engine.trials
            engine.take(number, load)
            del waiting[number]
    return begun


def _preference(backbone: str, engine: _Engine) -> tuple[int, bool]:
    """The less, the rather a trial of this backbone gets this engine."""
    return len(engine.trials), engine.backbone != backbone
