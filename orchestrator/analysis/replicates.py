"""Two configurations, or one, over their replicates: seeds, or seeds on folds where a task is cut into folds.

Seeds of two configurations share nothing and are not paired. Folds are: both sides trained on the same rows of a fold
and were validated on the same others. And folds are not independent of each other, since any two share rows that they
train on; see `intervals.corrected_over_folds`. All seeds are trained on the same folds, so several on one fold are no
further folds: a fold counts by its mean over seeds. Of a method whose seeds hardly differ, such as a linear probe, an
interval that took each seed on each fold for a draw of its own would be far too narrow.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from orchestrator.analysis.configurations import Replicate, SeedSummary
from orchestrator.analysis.statistics import intervals
from orchestrator.analysis.statistics.intervals import Estimate

# What an interval is over.
SEEDS, SEEDS_AND_ROWS = "seeds", "seeds and rows"
FOLDS, FOLDS_AND_ROWS = "folds (corrected)", "folds (corrected) and rows"


def common_folds(summaries: Sequence[SeedSummary]) -> int | None:
    """Into how many folds the task of all of these is cut; None where it is into none, or not the same for all."""
    found = {summary.num_folds for summary in summaries}
    return found.pop() if len(found) == 1 else None


def with_rows(num_folds: int | None) -> str:
    """What an interval is over where it covers other rows too."""
    return SEEDS_AND_ROWS if num_folds is None else FOLDS_AND_ROWS


def shared_replicates(summaries: Sequence[SeedSummary]) -> list[Replicate]:
    """The seeds and folds that all of these have, in order."""
    return sorted(set.intersection(*(set(summary.replicates) for summary in summaries)))


def estimate(summary: SeedSummary) -> tuple[Estimate | None, str]:
    """The mean score of a configuration, and what its interval is over. None of one seed, or one fold."""
    if summary.num_folds is not None:
        by_fold = mean_of_folds(np.array(summary.scores), summary.replicates)
        found = intervals.corrected_over_folds(by_fold, summary.num_folds)
        return found and replace(found, mean=summary.mean), FOLDS
    error = summary.sem
    if error is None:
        return None, SEEDS
    return Estimate(mean=summary.mean, standard_error=error, degrees_of_freedom=summary.num_seeds - 1), SEEDS


def difference(ours: SeedSummary, theirs: SeedSummary, sign: float) -> tuple[Estimate | None, str]:
    """The first mean less the second, both times `sign`, and what its interval is over.

    Over seeds it is Welch's; over folds, of the replicates that both have. None where a side has one seed, or both have
    fewer than two folds in common.
    """
    folds = common_folds([ours, theirs])
    if folds is None:
        return intervals.welch(sign * np.array(ours.scores), sign * np.array(theirs.scores)), SEEDS
    return paired_over_folds([(ours, 1.0)], [(theirs, 1.0)], folds, sign), FOLDS


def paired_over_folds(
    ours: Sequence[tuple[SeedSummary, float]], theirs: Sequence[tuple[SeedSummary, float]], folds: int, sign: float
) -> Estimate | None:
    """The difference of two sides, each a mixture with weights, over the seeds and folds that all of them have."""
    both = shared_replicates([summary for summary, _ in (*ours, *theirs)])
    if not both:
        return None
    first, second = (_weighted(side, both) for side in (ours, theirs))
    differences = sign * (first - second)
    found = intervals.corrected_over_folds(mean_of_folds(differences, both), folds)
    return found and replace(found, mean=intervals.mean(differences))


def mean_of_folds(values: np.ndarray, which: Sequence[Replicate]) -> np.ndarray:
    """Of `(num_replicates, ...)` values the means over the seeds of each fold that has any, `(num_folds, ...)`."""
    folds = np.array([fold for _, fold in which])
    return np.stack([values[folds == fold].mean(axis=0) for fold in np.unique(folds)])


def _weighted(side: Sequence[tuple[SeedSummary, float]], which: Sequence[Replicate]) -> np.ndarray:
    """The weighted scores of a side on some replicates."""
    scores = [(dict(zip(summary.replicates, summary.scores, strict=True)), weight) for summary, weight in side]
    return np.array([sum(weight * own[each] for own, weight in scores) for each in which])
