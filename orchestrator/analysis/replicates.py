"""Two configurations, or one, over their replicates: seeds, or seeds on folds where a task is cut into folds.

Seeds of two configurations share nothing and are not paired. Folds are: both sides trained on the same rows of a fold
and were validated on the same others. And folds are not independent of each other, since any two share rows that they
train on; see `intervals.corrected_over_folds`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from orchestrator.analysis.configurations import Replicate, SeedSummary
from orchestrator.analysis.statistics import intervals
from orchestrator.analysis.statistics.intervals import Estimate

# What an interval is over.
SEEDS, SEEDS_AND_ROWS, FOLDS = "seeds", "seeds and rows", "folds (corrected)"


def common_folds(summaries: Sequence[SeedSummary]) -> int | None:
    """Into how many folds the task of all of these is cut; None where it is into none, or not the same for all."""
    found = {summary.num_folds for summary in summaries}
    return found.pop() if len(found) == 1 else None


def estimate(summary: SeedSummary) -> tuple[Estimate | None, str]:
    """The mean score of a configuration, and what its interval is over. None of one replicate."""
    if summary.num_folds is not None:
        return intervals.corrected_over_folds(summary.scores, summary.num_folds), FOLDS
    error = summary.sem
    if error is None:
        return None, SEEDS
    return Estimate(mean=summary.mean, standard_error=error, degrees_of_freedom=summary.num_seeds - 1), SEEDS


def difference(ours: SeedSummary, theirs: SeedSummary, sign: float) -> tuple[Estimate | None, str]:
    """The first mean less the second, both times `sign`, and what its interval is over.

    Over seeds it is Welch's; over folds, of the replicates that both have. None where a side has one replicate, or
    both have fewer than two in common.
    """
    folds = common_folds([ours, theirs])
    if folds is None:
        return intervals.welch(sign * np.array(ours.scores), sign * np.array(theirs.scores)), SEEDS
    return paired_over_folds([(ours, 1.0)], [(theirs, 1.0)], folds, sign), FOLDS


def paired_over_folds(
    ours: Sequence[tuple[SeedSummary, float]], theirs: Sequence[tuple[SeedSummary, float]], folds: int, sign: float
) -> Estimate | None:
    """The difference of two sides, each a mixture with weights, over the seeds and folds that all of them have."""
    first, second = _by_replicate(ours), _by_replicate(theirs)
    both = sorted(first.keys() & second.keys())
    if len(both) < 2:
        return None
    return intervals.corrected_over_folds([sign * (first[each] - second[each]) for each in both], folds)


def _by_replicate(side: Sequence[tuple[SeedSummary, float]]) -> Mapping[Replicate, float]:
    """The weighted score of a side on each replicate that all its configurations have."""
    scores = [(dict(zip(summary.replicates, summary.scores, strict=True)), weight) for summary, weight in side]
    shared = set.intersection(*(set(own) for own, _ in scores))
    return {each: sum(weight * own[each] for own, weight in scores) for each in shared}
