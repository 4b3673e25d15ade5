from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from orchestrator.analysis import estimators

finite = st.floats(-1e6, 1e6, allow_nan=False)
several = st.lists(finite, min_size=2, max_size=12)
quantiles = st.lists(st.floats(0, 1), min_size=1, max_size=5)


@given(st.lists(finite, min_size=1, max_size=12))
def test_the_mean_is_numpys(scores: list[float]) -> None:
    assert estimators.mean(scores) == pytest.approx(np.mean(scores), rel=1e-12, abs=1e-9)


@given(several)
def test_the_standard_error_is_scipys(scores: list[float]) -> None:
    assert estimators.standard_error(scores) == pytest.approx(stats.sem(scores, ddof=1), rel=1e-9, abs=1e-9)


@given(several, st.floats(0.5, 0.999))
def test_the_interval_is_scipys(scores: list[float], confidence: float) -> None:
    ours = estimators.t_interval(scores, confidence=confidence)
    mean, sem, n = np.mean(scores), stats.sem(scores, ddof=1), len(scores)
    half_width = stats.t.ppf((1 + confidence) / 2, n - 1) * sem
    assert ours == pytest.approx((mean - half_width, mean + half_width), rel=1e-6, abs=1e-6)


@given(st.lists(finite, min_size=1, max_size=12), quantiles)
def test_percentiles_interpolate_linearly_between_order_statistics(scores: list[float], levels: list[float]) -> None:
    ordered = sorted(scores)

    def by_hand(level: float) -> float:
        rank = level * (len(ordered) - 1)
        below = min(int(rank), len(ordered) - 1)
        above = min(below + 1, len(ordered) - 1)
        return ordered[below] + (rank - below) * (ordered[above] - ordered[below])

    assert estimators.percentiles(scores, levels) == pytest.approx([by_hand(q) for q in levels], rel=1e-9, abs=1e-6)


@given(several, st.randoms(use_true_random=False))
def test_the_order_of_the_scores_does_not_matter_to_the_last_bit(scores: list[float], shuffler: object) -> None:
    shuffled = list(scores)
    shuffler.shuffle(shuffled)  # type: ignore[attr-defined]
    assert estimators.mean(shuffled) == estimators.mean(scores)
    assert estimators.standard_error(shuffled) == estimators.standard_error(scores)


@given(several)
def test_equal_questions_get_equal_answers(scores: list[float]) -> None:
    assert estimators.t_interval(scores) == estimators.t_interval(list(scores))
    assert estimators.percentiles(scores, [0.2, 0.8]) == estimators.percentiles(list(scores), [0.2, 0.8])


def test_one_score_says_nothing_about_its_spread() -> None:
    assert estimators.mean([0.9]) == 0.9
    assert estimators.standard_error([0.9]) is None
    assert estimators.t_interval([0.9]) is None


@pytest.mark.parametrize("scores", [[], [0.5, float("nan")], [0.5, float("inf")], [[0.5, 0.6]]])
def test_what_is_not_a_row_of_finite_scores_is_refused(scores: list[float]) -> None:
    for estimator in (
        estimators.mean,
        estimators.standard_error,
        estimators.t_interval,
        lambda values: estimators.percentiles(values, [0.5]),
    ):
        with pytest.raises(ValueError, match="non-empty array of finite numbers"):
            estimator(scores)


@pytest.mark.parametrize("confidence", [0, 1, 95])
def test_a_confidence_outside_zero_and_one_is_refused(confidence: float) -> None:
    with pytest.raises(ValueError, match=r"confidence: must be in \(0, 1\)"):
        estimators.t_interval([0.1, 0.2], confidence=confidence)


def test_a_quantile_outside_zero_and_one_is_refused() -> None:
    with pytest.raises(ValueError, match="range"):
        estimators.percentiles([0.1, 0.2], [1.5])
