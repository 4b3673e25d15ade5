"""What a sweep has left while it runs: trials that are under way, and those that are yet to come. Needs no Ray."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence

from orchestrator.planning.plan import PlannedTrial
from orchestrator.scheduling.loans import wants_of
from orchestrator.trial_source import TrialSource


class Remaining:
    """Counts what is left. May be asked from any thread."""

    def __init__(self, source: TrialSource) -> None:
        self._trial_source = source
        self.under_way: Callable[[], Sequence[PlannedTrial]] = tuple  # which were handed out and have no record

    def by_key(self) -> Mapping[str | None, int]:
        """How many trials have no record yet, by pack key."""
        left = Counter(self._trial_source.by_key())
        left.update(trial.pack_key for trial in self.under_way())
        return left

    def has_some_for_gpus(self) -> bool | None:
        """Whether a trial is under way that would rather have a GPU; None where none is under way."""
        under_way = self.under_way()
        return any(not wants_of(trial).runs_on_cpu for trial in under_way) if under_way else None

    def has_some_for_cpus(self) -> bool:
        """Whether a trial is under way that needs no GPU."""
        return any(wants_of(trial).runs_on_cpu for trial in self.under_way())
