"""Many scores as one number or one curve: across tasks and seeds, and of one method against another."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from orchestrator.analysis.statistics.checked import ScoresByTask, by_task, same_length, vector


def percentiles(scores: npt.ArrayLike, quantiles: Sequence[float]) -> list[float]:
    """The quantiles, each in [0, 1], of `(n,)` scores, n >= 1; as many answers as quantiles, in their order.

    Interpolates linearly between order statistics, with the quantile q at rank q * (n - 1) counted from 0: type 7 of
    Hyndman and Fan (1996), the default of numpy and R. Raises `ValueError` on scores that are not finite, or outside
    [0, 1].
    """
    return [float(value) for value in np.quantile(vector(scores), quantiles, method="linear")]


def interquartile_mean(scores: ScoresByTask) -> float:
    """The mean of the middle half of all scores, of all tasks and seeds together.

    Of n sorted scores, floor(n / 4) are dropped at either end: `scipy.stats.trim_mean` with 0.25. It is harder to sway
    by one outlying run than the mean, and it uses more of the scores than the median. Tasks with more seeds weigh more.
    Scores of different tasks must be comparable, such as differences to a reference.

    Source: Agarwal et al. (2021), "Deep Reinforcement Learning at the Edge of the Statistical Precipice", section 4.
    """
    together = np.sort(np.concatenate(by_task(scores)))
    cut = len(together) // 4
    return float(together[cut : len(together) - cut].mean())


def probability_of_superiority(first: npt.ArrayLike, second: npt.ArrayLike) -> float:
    """P(A > B) on one task: how often a random run of A scores above a random run of B; a tie counts half.

    `first` are `(n,)` scores of A and `second` are `(m,)` scores of B, n and m >= 1; all n * m pairs are looked at. It
    is the Mann-Whitney statistic U over n * m, also called the common language effect size. A half is no difference.

    Source: Vargha and Delaney (2000); Bouthillier et al. (2021), who ask for P(A > B) above 0.75 to call A better.
    """
    ours, theirs = vector(first, "first"), np.sort(vector(second, "second"))
    below = np.searchsorted(theirs, ours, side="left")
    up_to = np.searchsorted(theirs, ours, side="right")
    return float((below + up_to).sum() / 2 / (len(ours) * len(theirs)))


def probability_of_improvement(first: ScoresByTask, second: ScoresByTask) -> float:
    """How likely A improves on B on a task drawn at random: the mean over tasks of `probability_of_superiority`.

    Both sides must have the same tasks in the same order; the number of seeds may differ. It says how often A is better
    and nothing about by how much. Source: Agarwal et al. (2021), section 4.3.
    """
    ours, theirs = by_task(first, "first"), by_task(second, "second")
    same_length(ours, theirs, "tasks")
    return float(np.mean([probability_of_superiority(a, b) for a, b in zip(ours, theirs, strict=True)]))


def share_of_pairs_won(first: npt.ArrayLike, second: npt.ArrayLike) -> float:
    """How often A scores above B in `(n,)` pairs, such as the same seed or the same task; a tie counts half.

    This is the paired estimate of P(A > B) of Bouthillier et al. (2021), "Accounting for Variance in Machine Learning
    Benchmarks": pairing takes out what both sides have in common, such as the order of the data.
    """
    ours, theirs = vector(first, "first"), vector(second, "second")
    same_length(ours, theirs, "pairs")
    return float((np.sign(ours - theirs).mean() + 1) / 2)


def performance_profile(scores: ScoresByTask, thresholds: npt.ArrayLike) -> np.ndarray:
    """For each of `(t,)` thresholds the share of runs that score above it, as `(t,)` numbers in [0, 1].

    The share is taken of each task's runs and then as a mean over tasks. A method whose profile lies above that of
    another at every threshold is stochastically better. Scores of different tasks must be comparable. Sources: Dolan
    and More (2002); Agarwal et al. (2021), section 4.2, who call it the run-score distribution.
    """
    levels = np.asarray(thresholds, dtype=np.float64)
    tasks = [np.sort(task) for task in by_task(scores)]
    return np.mean([1 - np.searchsorted(task, levels, side="right") / len(task) for task in tasks], axis=0)
