"""Where trials come from: a plan that is known in full, or a search that makes up its mind as records come in."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Iterable, Mapping
from typing import Protocol

from orchestrator.planning.plan import PlannedTrial
from orchestrator.record import TrialRecord

# In the place of the pack key of trials that a search has not thought of yet.
UNKNOWN = "unknown"


class TrialSource(Protocol):
    """Hands out trials one by one, each once. Used from one thread, that of the sweep's driver."""

    @property
    def most(self) -> int:
        """How many trials it will hand out at most, from now on."""

    @property
    def longest(self) -> Mapping[str, int]:
        """The most epochs that any of its trials may train, by the task's reference (`TrialConfig.task`)."""

    def by_key(self) -> Mapping[str | None, int]:
        """How many trials it may still hand out, by pack key: `UNKNOWN` of those that nobody knows yet.

        May be asked from any thread.
        """

    def next(self) -> PlannedTrial | None:
        """The next trial to train; None where none can be named before one that is under way has ended."""

    def is_exhausted(self) -> bool:
        """Whether `next` will never name another trial."""

    def ended(self, record: TrialRecord) -> None:
        """Take in the record of a trial that was handed out, whatever came of it."""


class FixedTrials:
    """Trials that were all planned before the first began, in the order of the plan."""

    def __init__(self, trials: Iterable[PlannedTrial]) -> None:
        self._waiting = deque(trials)
        self._longest: dict[str, int] = {}
        self._by_key = Counter(trial.pack_key for trial in self._waiting)
        for trial in self._waiting:
            task = trial.config.task
            self._longest[task] = max(trial.config.num_epochs, self._longest.get(task, 0))

    @property
    def most(self) -> int:
        return len(self._waiting)

    @property
    def longest(self) -> Mapping[str, int]:
        return self._longest

    def by_key(self) -> Mapping[str | None, int]:
        return dict(self._by_key)

    def next(self) -> PlannedTrial | None:
        if not self._waiting:
            return None
        trial = self._waiting.popleft()
        self._by_key[trial.pack_key] -= 1
        return trial

    def is_exhausted(self) -> bool:
        return not self._waiting

    def ended(self, record: TrialRecord) -> None:
        """Nothing that comes of a trial changes the plan."""


class SkipFinished:
    """A source without the trials that need no training, since another sweep that shares the store had them trained.

    Whoever supplies them hears of their records as if they had just ended.
    """

    def __init__(
        self, source: TrialSource, finished: Mapping[str, TrialRecord], known: Callable[[TrialRecord], None]
    ) -> None:
        """`finished`: other sweeps' records; `known` is told of each that spares a trial."""
        self._trial_source = source
        self._finished = finished
        self._known = known

    @property
    def most(self) -> int:
        return self._trial_source.most

    @property
    def longest(self) -> Mapping[str, int]:
        return self._trial_source.longest

    def by_key(self) -> Mapping[str | None, int]:
        return self._trial_source.by_key()

    def next(self) -> PlannedTrial | None:
        while (trial := self._trial_source.next()) is not None and (record := self._finished.get(trial.trial_id)):
            self._trial_source.ended(record)
            self._known(record)
        return trial

    def is_exhausted(self) -> bool:
        return self._trial_source.is_exhausted()

    def ended(self, record: TrialRecord) -> None:
        self._trial_source.ended(record)
