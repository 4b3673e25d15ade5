"""A source of trials as a Ray Tune searcher: each is named to Tune when there is room for it, and not before."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from ray.tune.search import Searcher

from orchestrator.planning.plan import PlannedTrial
from orchestrator.scheduling.loans import wants_of
from orchestrator.scheduling.trial import Assignment
from orchestrator.trial_source import TrialSource

# Keys of a Tune trial's config.
TRIAL_ID, TASK, BACKBONE, METHOD, FOLD = "trial_id", "task", "backbone", "method", "fold"
ASSIGNMENT = "assignment"


class Proposals(Searcher):
    """Hands Tune the trials of a source, at most so many at a time.

    Args:
        source: where the trials come from.
        concurrent: tells the most trials that Tune may have under way now; it grows with a cluster.
        may_be_pruned: whether a trial scheduler judges them.
        keep_predictions: whether their outcomes bring what they predict.
        keep_weights: whether they bring what has been trained.
        has_ended: whether no more trials may begin.
        handed_out: told of each trial before Tune is.
    """

    def __init__(
        self,
        source: TrialSource,
        concurrent: Callable[[], int],
        *,
        may_be_pruned: bool,
        has_ended: Callable[[], bool],
        handed_out: Callable[[PlannedTrial], None],
        keep_predictions: bool = False,
        keep_weights: bool = False,
    ) -> None:
        super().__init__()
        self._trial_source = source
        self._concurrent = concurrent
        self._wishes = may_be_pruned, keep_predictions, keep_weights
        self._has_ended = has_ended
        self._handed_out = handed_out
        self._under_way: set[str] = set()  # Tune's own ids

    def __getstate__(self) -> dict[str, Any]:
        # Tune pickles its searcher for `Tuner.restore`; we resume from the store, and a source may hold anything.
        return {}

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:  # type: ignore[override]
        if self._has_ended() or self._trial_source.is_exhausted():
            return Searcher.FINISHED
        if len(self._under_way) >= self._concurrent() or (trial := self._trial_source.next()) is None:
            return None
        self._under_way.add(trial_id)
        self._handed_out(trial)
        return {
            TRIAL_ID: trial.trial_id,
            TASK: trial.config.task,
            BACKBONE: trial.config.backbone,
            METHOD: trial.config.method,
            FOLD: trial.config.fold,
            ASSIGNMENT: Assignment(trial.config, trial.pack_key, wants_of(trial), *self._wishes),
        }

    def on_trial_complete(self, trial_id: str, result: Mapping[str, Any] | None = None, error: bool = False) -> None:
        """Make room. What came of the trial is told to the source with its record, which says more than a result."""
        self._under_way.discard(trial_id)

    def save(self, checkpoint_path: str) -> None:
        """Nothing: the store is what a sweep resumes from."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing: the store is what a sweep resumes from."""
