"""How long engines take for the trials of a sweep, played through: which packs form, who waits, who is left alone.

Follows what `orchestrator.scheduling.pool` does: so many trials are under way, in the order of the plan; one that can
join a pack does; an engine that stands idle takes those for which it has to load the least, the oldest first. Which
trial gets which engine is what `orchestrator.scheduling.loans.next_loan` says, by indices that find it among
thousands. A trial whose node fails begins anew, behind those that wait.
"""

from __future__ import annotations

import functools
import heapq
import itertools
from collections import defaultdict, deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from orchestrator.estimate.outages import LOSS_SEEN_S, NodeOutages, Outages

# From the end of a trial to the first step of the one that Ray Tune starts in its place.
DISPATCH_S = 0.3
# Trials that begin anew so often each, on average, are too long for how often nodes fail.
MOST_ANEW = 100


class NeverEndsError(RuntimeError):
    """Nodes fail so often that the sweep does not come to its end."""


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

    @functools.cached_property
    def needs(self) -> frozenset[str]:
        """Names of what an engine loads for the first trial that needs it."""
        names = frozenset(name for name, _ in self.once)
        return names | {self.backbone} if self.backbone else names


@dataclass(frozen=True, kw_only=True)
class Makespan:
    """What came of playing it through."""

    seconds: float  # from the first trial's start to the last one's end
    busy_s: float  # of all engines together
    packs: int  # how often an idle engine began one
    mean_pack_size: float  # trials that train together, over the time that engines train
    up_s: float  # of all engines together, without the time in which their nodes were away
    failures: int = 0  # of nodes
    begun_anew: int = 0  # how often a trial lost its engine and began anew


@dataclass(eq=False)
class Engine:
    """An engine as it goes. Its trials are told by the step of the engine's, counted from 0, after which each ends."""

    place: int
    most: int | None = None  # trials at a time; None: as many as its packs hold
    clock: float = 0.0  # when it was last brought up to date
    steps: float = 0.0  # that it has done
    busy_s: float = 0.0
    trial_s: float = 0.0  # of its trials together, over the time that it trains
    ends: list[tuple[float, int]] = field(default_factory=list)  # heap of last step and number
    trials: set[int] = field(default_factory=set)
    key: str | None = None
    limit: int = 1
    fixed_s: float = 0.0
    each_s: float = 0.0  # of a step, for what its trials add to it
    debt_s: float = 0.0  # what has to be done before the next step
    backbone: str = ""
    loaded: frozenset[str] = frozenset()
    version: int = 0  # counts what makes an end that was foretold wrong
    is_up: bool = True
    down_s: float = 0.0

    def takes(self, key: str | None) -> bool:
        if not self.is_up or not self.trials:
            return self.is_up
        return key is not None and key == self.key and len(self.trials) < self.limit

    def advance(self, now: float) -> None:
        """Train until now."""
        passed, self.clock = now - self.clock, now
        if not self.trials:
            return
        self.busy_s += passed
        self.trial_s += passed * len(self.trials)
        paid = min(passed, self.debt_s)
        self.debt_s -= paid
        self.steps += (passed - paid) / self._round_s

    def next_end(self) -> float:
        """When the first of its trials ends, should none join."""
        return self.clock + self.debt_s + max(0.0, self.ends[0][0] - self.steps) * self._round_s

    def take(self, number: int, load: Load) -> None:
        """Begin a trial at its clock."""
        if not self.trials:
            self.key, self.fixed_s = load.key, load.fixed_s
            self.limit = load.limit if self.most is None else min(load.limit, self.most)
        self.trials.add(number)
        self.each_s += _each_s(load)
        heapq.heappush(self.ends, (self.steps + load.num_steps, number))
        if load.backbone and load.backbone != self.backbone:
            self.debt_s += load.load_s if self.backbone else 0.0
            self.backbone, self.loaded = load.backbone, frozenset()  # what was computed with the one before is gone
        self.debt_s += sum(seconds for name, seconds in load.once if name not in self.loaded)
        self.loaded |= load.needs
        self.version += 1

    def end_first(self, loads: Sequence[Load]) -> None:
        """Let the trial go that ends at its clock."""
        _, number = heapq.heappop(self.ends)
        self.trials.remove(number)
        self.each_s -= _each_s(loads[number])
        if not self.trials:
            self._rest()
        self.version += 1

    def fail(self) -> list[int]:
        """Lose all trials, and what was done once; returns their numbers, the first one to end first."""
        lost = [number for _, number in sorted(self.ends)]
        self.trials.clear()
        self.ends.clear()
        self.backbone, self.loaded = "", frozenset()
        self._rest()
        self.version += 1
        self.is_up = False
        return lost

    def _rest(self) -> None:
        """Begin to count anew, so that no rounding of long sums is carried on."""
        self.steps = self.each_s = self.debt_s = 0.0

    @property
    def _round_s(self) -> float:
        """Of one step of all its trials, each one's share of its own work included."""
        return max(self.fixed_s + self.each_s, 1e-12)


_Queue = deque[tuple[int, int]]  # order and number; those that are gone are skipped


class Waiting:
    """Trials that wait for an engine, found by what they need, by age and by pack key."""

    def __init__(self) -> None:
        self._by_needs: dict[frozenset[str], _Queue] = {}
        self._by_key: dict[str, _Queue] = defaultdict(deque)
        self._present: dict[int, int] = {}  # number -> order
        self._order = itertools.count()

    def add(self, number: int, load: Load) -> None:
        """The newest of all."""
        place = next(self._order)
        self._present[number] = place
        self._by_needs.setdefault(load.needs, deque()).append((place, number))
        if load.key is not None:
            self._by_key[load.key].append((place, number))

    def pop_for(self, loaded: frozenset[str]) -> int | None:
        """Of those for which the least has to be loaded the oldest."""
        best: tuple[int, int] | None = None
        found: frozenset[str] | None = None
        for needs, queue in list(self._by_needs.items()):
            if not self._clear(queue):
                del self._by_needs[needs]
                continue
            rank = (len(needs - loaded), queue[0][0])
            if best is None or rank < best:
                best, found = rank, needs
        return None if found is None else self._pop(self._by_needs[found])

    def pop_of(self, key: str | None) -> int | None:
        """The oldest with this key; None stands for no key, by which nobody joins a pack."""
        return None if key is None or not self._clear(self._by_key[key]) else self._pop(self._by_key[key])

    def _clear(self, queue: _Queue) -> bool:
        """Drop from its front those that are gone; whether any are left."""
        while queue and self._present.get(queue[0][1]) != queue[0][0]:
            queue.popleft()
        return bool(queue)

    def _pop(self, queue: _Queue) -> int:
        _, number = queue.popleft()
        del self._present[number]
        return number


class EngineIndex:
    """Finds an engine for a trial among many: of the idle ones that which has the least to load, the first of equals;
    where none is idle, the smallest pack that it can join.
    """

    def __init__(self, engines: Sequence[Engine]) -> None:
        self._engines = engines
        # Heaps, of which what is no longer so is skipped; idle engines by what they have loaded.
        self._idle = {frozenset[str](): [engine.place for engine in engines]}
        self._packs: dict[str, list[tuple[int, int]]] = defaultdict(list)

    def changed(self, engine: Engine) -> None:
        """Its trials, or whether it is up, are others than before."""
        if not engine.is_up:
            return
        if not engine.trials:
            heapq.heappush(self._idle.setdefault(engine.loaded, []), engine.place)
        elif engine.key is not None and len(engine.trials) < engine.limit:
            heapq.heappush(self._packs[engine.key], (len(engine.trials), engine.place))

    def find(self, load: Load) -> Engine | None:
        idle: list[tuple[int, int]] = []
        for loaded, places in list(self._idle.items()):
            while places and not self._is_idle_with(places[0], loaded):
                heapq.heappop(places)
            if places:
                idle.append((len(load.needs - loaded), places[0]))
            else:
                del self._idle[loaded]
        if idle:
            return self._engines[min(idle)[1]]
        packs = self._packs[load.key] if load.key is not None else []
        while packs:
            size, place = packs[0]
            if len(self._engines[place].trials) == size and self._engines[place].takes(load.key):
                return self._engines[place]
            heapq.heappop(packs)
        return None

    def _is_idle_with(self, place: int, loaded: frozenset[str]) -> bool:
        engine = self._engines[place]
        return engine.is_up and not engine.trials and engine.loaded == loaded


# Kinds of events, at one moment in this order: ends make room for those that arrive.
_END, _ARRIVAL, _FAILURE, _RETURN = range(4)


class _Play:
    """One sweep on one cluster, event after event."""

    def __init__(
        self,
        loads: Sequence[Load],
        *,
        engines: int,
        concurrent: int,
        most_each: int | None,
        dispatch_s: float,
        starts_per_s: float,
        engines_per_node: int,
        outages: Outages | None,
    ) -> None:
        self._loads = loads
        self._engines = [Engine(place, most=most_each) for place in range(engines)]
        self._index = EngineIndex(self._engines)
        self._waiting = Waiting()
        self._unstarted = iter(range(len(loads)))
        self._left = len(loads)
        self._dispatch_s = dispatch_s
        self._start_every_s = 1 / starts_per_s if starts_per_s else 0.0
        self._next_start = 0.0
        self._events: list[tuple[float, int, int, int]] = []  # when, kind, number or place, version
        self._nodes: list[tuple[list[Engine], NodeOutages]] = []
        self._outages = outages
        self._packs = self._failures = self._begun_anew = 0
        for _ in range(concurrent):
            self._start_next(0.0)
        if outages is not None and outages.per_hour > 0:
            for node, first in enumerate(range(0, engines, engines_per_node)):
                self._nodes.append((self._engines[first : first + engines_per_node], outages.of(node)))
                self._await_failure(node, 0.0)

    def run(self) -> Makespan:
        now = 0.0
        while self._left:
            when, kind, which, version = heapq.heappop(self._events)
            if kind == _END and self._engines[which].version != version:
                continue
            now = when
            if kind == _END:
                self._end(self._engines[which], now)
            elif kind == _ARRIVAL:
                self._arrive(which, now)
            elif kind == _FAILURE:
                self._fail(which, now)
            else:
                self._come_back(which, now)
        for engine in self._engines:
            engine.advance(now)
            engine.down_s += 0.0 if engine.is_up else now
        busy_s = sum(engine.busy_s for engine in self._engines)
        trial_s = sum(engine.trial_s for engine in self._engines)
        return Makespan(
            seconds=now,
            busy_s=busy_s,
            packs=self._packs,
            mean_pack_size=trial_s / busy_s if busy_s else 0.0,
            up_s=len(self._engines) * now - sum(engine.down_s for engine in self._engines),
            failures=self._failures,
            begun_anew=self._begun_anew,
        )

    def _start_next(self, when: float) -> None:
        """Have the next trial of the plan ask for an engine, as soon as the driver comes to it."""
        number = next(self._unstarted, None)
        if number is not None:
            self._next_start = max(when, self._next_start + self._start_every_s) if self._start_every_s else when
            heapq.heappush(self._events, (self._next_start, _ARRIVAL, number, 0))

    def _arrive(self, number: int, now: float) -> None:
        load = self._loads[number]
        # Those that wait already cannot be lent anything, and so none before this one can.
        if (engine := self._index.find(load)) is None:
            self._waiting.add(number, load)
        else:
            engine.advance(now)
            self._take(engine, number)
            self._foretell(engine)

    def _take(self, engine: Engine, number: int) -> None:
        self._packs += not engine.trials
        engine.take(number, self._loads[number])
        self._index.changed(engine)

    def _foretell(self, engine: Engine) -> None:
        if engine.trials:
            heapq.heappush(self._events, (engine.next_end(), _END, engine.place, engine.version))

    def _end(self, engine: Engine, now: float) -> None:
        engine.advance(now)
        engine.end_first(self._loads)
        self._left -= 1
        self._start_next(now + self._dispatch_s)
        self._fill(engine)

    def _fill(self, engine: Engine) -> None:
        """Give those that wait what an engine has room for."""
        self._index.changed(engine)
        if not engine.trials and (number := self._waiting.pop_for(engine.loaded)) is not None:
            self._take(engine, number)
        while engine.trials and engine.takes(engine.key) and (number := self._waiting.pop_of(engine.key)) is not None:
            self._take(engine, number)
        self._foretell(engine)

    def _await_failure(self, node: int, up_since: float) -> None:
        when = self._nodes[node][1].next_failure(up_since)
        heapq.heappush(self._events, (when, _FAILURE, node, 0))

    def _fail(self, node: int, now: float) -> None:
        assert self._outages is not None
        self._failures += 1
        for engine in self._nodes[node][0]:
            engine.advance(now)
            engine.down_s -= now
            for number in engine.fail():
                self._begun_anew += 1
                heapq.heappush(self._events, (now + LOSS_SEEN_S, _ARRIVAL, number, 0))
        if self._begun_anew > MOST_ANEW * len(self._loads):
            raise NeverEndsError(f"trials began anew {self._begun_anew:,} times and do not come to their end")
        back_at = now + self._outages.replaced_after_s + self._outages.start_s
        heapq.heappush(self._events, (back_at, _RETURN, node, 0))

    def _come_back(self, node: int, now: float) -> None:
        for engine in self._nodes[node][0]:
            engine.advance(now)
            engine.down_s += now
            engine.is_up = True
            self._fill(engine)
        self._await_failure(node, now)


def play(
    loads: Iterable[Load],
    *,
    engines: int,
    concurrent: int | None = None,
    most_each: int | None = None,
    dispatch_s: float = DISPATCH_S,
    starts_per_s: float = 0.0,
    engines_per_node: int = 1,
    outages: Outages | None = None,
) -> Makespan:
    """Train all loads on so many engines, at most `concurrent` under way at once; None: as many as there are.

    Each engine trains at most `most_each` at a time; None: as many as its packs hold.
    `starts_per_s`: the most trials that the driver starts in a second; 0 for any number. `engines_per_node` of them
    fail together where there are `outages`.
    """
    every = list(loads)
    played = _Play(
        every,
        engines=max(1, engines),
        concurrent=concurrent or len(every),
        most_each=most_each,
        dispatch_s=dispatch_s,
        starts_per_s=starts_per_s,
        engines_per_node=max(1, engines_per_node),
        outages=outages,
    )
    return played.run()


def _each_s(load: Load) -> float:
    return load.trial_s + load.own_s / load.num_steps
