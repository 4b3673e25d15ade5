from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from orchestrator.analysis.statistics import aggregates

finite = st.floats(-1e6, 1e6, allow_nan=False)
quantiles = st.lists(st.floats(0, 1), min_size=1, max_size=5)


@given(st.lists(finite, min_size=1, max_size=12), quantiles)
def test_percentiles_interpolate_linearly_between_order_statistics(scores: list[float], levels: list[float]) -> None:
    ordered = sorted(scores)

    def by_hand(level: float) -> float:
        rank = level * (len(ordered) - 1)
        below = min(int(rank), len(ordered) - 1)
        above = min(below + 1, len(ordered) - 1)
        return ordered[below] + (rank - below) * (ordered[above] - ordered[below])

    assert aggregates.percentiles(scores, levels) == pytest.approx([by_hand(q) for q in levels], rel=1e-9, abs=1e-6)


def test_a_quantile_outside_zero_and_one_is_refused() -> None:
    with pytest.raises(ValueError, match="range"):
        aggregates.percentiles([0.1, 0.2], [1.5])


def test_the_aggregates_are_those_of_rliable(golden: dict[str, Any]) -> None:
    first, second = golden["first"], golden["second"]
    assert aggregates.interquartile_mean(first) == pytest.approx(golden["iqm"], abs=1e-12)
    assert aggregates.probability_of_improvement(first, second) == pytest.approx(golden["poi"], abs=1e-12)
    assert aggregates.performance_profile(first, golden["taus"]) == pytest.approx(golden["profile"], abs=1e-12)


@given(st.lists(finite, min_size=1, max_size=30))
def test_the_interquartile_mean_is_scipys_trimmed_mean(scores: list[float]) -> None:
    assert aggregates.interquartile_mean([scores]) == pytest.approx(stats.trim_mean(scores, 0.25), rel=1e-9, abs=1e-6)


few = st.lists(st.integers(0, 5), min_size=1, max_size=9)


@given(few, few)
def test_the_probability_of_superiority_counts_pairs_and_ties_half(first: list[int], second: list[int]) -> None:
    pairs = [(a > b) + (a == b) / 2 for a in first for b in second]
    found = aggregates.probability_of_superiority(first, second)
    assert found == pytest.approx(np.mean(pairs))
    assert aggregates.probability_of_superiority(second, first) == pytest.approx(1 - found)


def test_a_tasks_weight_does_not_grow_with_its_seeds() -> None:
    won, lost = ([1.0], [0.0] * 9), ([0.0], [1.0] * 9)
    assert aggregates.probability_of_improvement(won, lost) == 0.5
    assert aggregates.performance_profile(won, [0.5]) == pytest.approx([0.5])


def test_pairs_won_look_at_pairs_alone() -> None:
    assert aggregates.share_of_pairs_won([3, 2, 1, 1], [2, 1, 1, 5]) == 0.625
    with pytest.raises(ValueError, match="as many pairs, but got 1 and 2"):
        aggregates.share_of_pairs_won([1], [1, 2])


def test_sides_with_other_tasks_are_refused() -> None:
    with pytest.raises(ValueError, match="as many tasks, but got 1 and 2"):
        aggregates.probability_of_improvement([[1.0]], [[1.0], [2.0]])
    with pytest.raises(ValueError, match="at least one task"):
        aggregates.interquartile_mean([])
