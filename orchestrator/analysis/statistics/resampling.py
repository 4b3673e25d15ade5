"""The bootstrap over seeds and tasks: how far a statistic of many runs would move if they were drawn again."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

import numpy as np

from orchestrator.analysis.statistics.checked import ScoresByTask, by_task, fraction

Resample = Literal["seeds", "seeds_and_tasks"]
Method = Literal["percentile", "bca"]
Statistic = Callable[[Sequence[np.ndarray]], float]


def bootstrap(
    scores: ScoresByTask,
    statistic: Statistic,
    *,
    rng: np.random.Generator,
    num_resamples: int = 2000,
    resample: Resample = "seeds",
) -> np.ndarray:
    """The statistic of `num_resamples` resamples of scores by task, as `(num_resamples,)` numbers.

    `resample="seeds"` draws, within each task, as many runs as it has, with replacement; the tasks stay as they are. It
    measures what other seeds would change on these tasks. `"seeds_and_tasks"` first draws as many tasks as there are,
    with replacement, and then runs within each: it measures what other tasks like these would change too, and needs
    many tasks. `statistic` takes one array of scores a task and returns a number.

    Source: Agarwal et al. (2021), section 4.1 (stratified bootstrap); Davison and Hinkley (1997), section 3.8.
    """
    tasks = by_task(scores)
    if num_resamples < 1:
        raise ValueError(f"num_resamples: must be >= 1, but got {num_resamples!r}")
    if resample not in ("seeds", "seeds_and_tasks"):
        raise ValueError(f"resample: must be 'seeds' or 'seeds_and_tasks', but got {resample!r}")
    if resample == "seeds":
        runs = [task[rng.integers(len(task), size=(num_resamples, len(task)))] for task in tasks]
        return np.array([statistic(drawn) for drawn in zip(*runs, strict=True)])
    found = np.empty(num_resamples)
    drawn = rng.integers(len(tasks), size=(num_resamples, len(tasks)))
    for index, chosen in enumerate(drawn):
        found[index] = statistic(
            [tasks[task][rng.integers(len(tasks[task]), size=len(tasks[task]))] for task in chosen]
        )
    return found


def bootstrap_interval(
    scores: ScoresByTask,
    statistic: Statistic,
    *,
    rng: np.random.Generator,
    confidence: float = 0.95,
    num_resamples: int = 2000,
    resample: Resample = "seeds",
    method: Method = "percentile",
) -> tuple[float, float]:
    """A two-sided bootstrap interval of a statistic of scores by task.

    `"percentile"` takes the quantiles (1 - confidence) / 2 and (1 + confidence) / 2 of the resampled statistics (linear
    interpolation), as rliable does. `"bca"` shifts those quantiles for the bias and the skewness of the statistic; the
    skewness is estimated by leaving out one run at a time, and one task at a time where tasks are drawn too. Both are
    too narrow with few runs: with n runs a task the standard error comes out smaller by sqrt((n - 1) / n), which is 18
    per cent at three seeds. With three seeds and one task use `intervals.t_interval`.

    Raises `ValueError` on confidence outside (0, 1) or where no task has two runs. Source: Efron (1987).
    """
    fraction(confidence, "confidence")
    tasks = by_task(scores)
    if max(map(len, tasks)) < 2 and (resample == "seeds" or len(tasks) < 2):
        raise ValueError("scores: no task has two runs, so a bootstrap over seeds says nothing")
    found = bootstrap(tasks, statistic, rng=rng, num_resamples=num_resamples, resample=resample)
    tails = np.array([(1 - confidence) / 2, (1 + confidence) / 2])
    if method == "bca":
        tails = _bca_levels(tails, found, statistic(tasks), _left_out(tasks, statistic, resample))
    elif method != "percentile":
        raise ValueError(f"method: must be 'percentile' or 'bca', but got {method!r}")
    low, high = np.quantile(found, tails)
    return float(low), float(high)


def _left_out(tasks: Sequence[np.ndarray], statistic: Statistic, resample: Resample) -> list[np.ndarray]:
    """The statistic without one unit at a time, an array for each sample that is drawn from."""
    if resample == "seeds_and_tasks":  # tasks are what varies most, and what a resample may lack altogether
        if len(tasks) < 2:
            return []
        return [np.array([statistic([*tasks[:t], *tasks[t + 1 :]]) for t in range(len(tasks))])]
    return [
        np.array([statistic([*tasks[:t], np.delete(tasks[t], run), *tasks[t + 1 :]]) for run in range(len(tasks[t]))])
        for t in range(len(tasks))
        if len(tasks[t]) > 1
    ]


def _bca_levels(tails: np.ndarray, found: np.ndarray, value: float, left_out: Sequence[np.ndarray]) -> np.ndarray:
    from scipy.special import ndtr, ndtri

    share_below = ((found < value).mean() + (found <= value).mean()) / 2
    if not 0 < share_below < 1:
        return tails
    bias = ndtri(share_below)
    influences = [(len(each) - 1) * (each.mean() - each) for each in left_out]
    cubes = sum(float((u**3).sum()) / len(u) ** 3 for u in influences)
    squares = sum(float((u**2).sum()) / len(u) ** 2 for u in influences)
    acceleration = cubes / (6 * squares**1.5) if squares > 0 else 0.0
    moved = bias + ndtri(tails)
    return np.asarray(ndtr(bias + moved / (1 - acceleration * moved)))
