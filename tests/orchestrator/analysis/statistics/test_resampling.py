from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
from scipy import stats

from orchestrator.analysis.statistics import aggregates, resampling

SEEDED = 7


def mean_of_tasks(tasks: Sequence[np.ndarray]) -> float:
    return float(np.mean([task.mean() for task in tasks]))


def mean_of_first(tasks: Sequence[np.ndarray]) -> float:
    return float(tasks[0].mean())


@pytest.mark.parametrize("resample", ["seeds", "seeds_and_tasks"])
@pytest.mark.parametrize("method", ["percentile", "bca"])
def test_intervals_of_the_interquartile_mean_are_those_of_rliable(
    resample: Any, method: Any, golden: dict[str, Any]
) -> None:
    if (resample, method) == ("seeds_and_tasks", "bca"):
        tolerance = 0.004  # rliable leaves out a run of all tasks at a time here, which is another acceleration
    else:
        tolerance = 0.0015 if resample == "seeds_and_tasks" else 0.0004
    found = resampling.bootstrap_interval(
        golden["first"],
        aggregates.interquartile_mean,
        rng=np.random.default_rng(SEEDED),
        num_resamples=4000,
        resample=resample,
        method=method,
    )
    assert found == pytest.approx(golden[f"iqm_{method}_{resample}"], abs=tolerance)


@pytest.mark.parametrize("resample", ["seeds", "seeds_and_tasks"])
def test_the_same_generator_gives_the_same_interval(resample: Any, golden: dict[str, Any]) -> None:
    def ask(seed: int) -> tuple[float, float]:
        rng = np.random.default_rng(seed)
        return resampling.bootstrap_interval(
            golden["first"], mean_of_tasks, rng=rng, num_resamples=200, resample=resample
        )

    assert ask(1) == ask(1)
    assert ask(1) != ask(2)


def test_bca_is_scipys() -> None:
    scores = np.random.default_rng(3).gamma(2, size=20)
    theirs = stats.bootstrap((scores,), np.mean, method="BCa", n_resamples=20_000, rng=np.random.default_rng(0))
    ours = resampling.bootstrap_interval(
        [scores], mean_of_first, rng=np.random.default_rng(1), num_resamples=20_000, method="bca"
    )
    assert ours == pytest.approx(tuple(theirs.confidence_interval), abs=0.02)


def test_seeds_alone_leave_the_tasks_as_they_are() -> None:
    apart = [[0.1, 0.1], [0.9, 0.9]]  # tasks that differ, seeds that do not
    rng = np.random.default_rng(0)
    fixed = resampling.bootstrap(apart, mean_of_tasks, rng=rng, num_resamples=50)
    assert np.ptp(fixed) == 0
    drawn = resampling.bootstrap(apart, mean_of_tasks, rng=rng, num_resamples=50, resample="seeds_and_tasks")
    assert sorted(set(drawn.round(6))) == [0.1, 0.5, 0.9]


@pytest.mark.thorough
def test_a_hundred_runs_are_covered_and_three_are_not_as_the_documentation_says(coverage: Callable[..., float]) -> None:
    def draw(num_runs: int) -> Callable[[np.random.Generator], tuple[float, float]]:
        return lambda rng: resampling.bootstrap_interval(
            [rng.normal(0.9, 0.01, num_runs)], lambda tasks: tasks[0].sum() / num_runs, rng=rng, num_resamples=500
        )

    assert 0.93 <= coverage(draw(100), 0.9, 600) <= 0.97
    assert coverage(draw(3), 0.9, 100) < 0.85


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ({"resample": "tasks"}, "'seeds' or 'seeds_and_tasks'"),
        ({"method": "normal"}, "'percentile' or 'bca'"),
        ({"confidence": 95}, "confidence: must be in"),
        ({"num_resamples": 0}, "num_resamples: must be >= 1"),
    ],
)
def test_what_cannot_be_drawn_is_refused(arguments: dict[str, Any], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        resampling.bootstrap_interval([[0.1, 0.2]], mean_of_first, rng=np.random.default_rng(0), **arguments)


def test_one_run_a_task_has_no_spread_over_seeds() -> None:
    with pytest.raises(ValueError, match="no task has two runs"):
        resampling.bootstrap_interval([[0.1], [0.2]], mean_of_first, rng=np.random.default_rng(0))
