from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from orchestrator.analysis.statistics import intervals

finite = st.floats(-1e6, 1e6, allow_nan=False)
several = st.lists(finite, min_size=2, max_size=12)


@given(st.lists(finite, min_size=1, max_size=12))
def test_the_mean_is_numpys(scores: list[float]) -> None:
    assert intervals.mean(scores) == pytest.approx(np.mean(scores), rel=1e-12, abs=1e-9)


@given(several)
def test_the_standard_error_is_scipys(scores: list[float]) -> None:
    assert intervals.standard_error(scores) == pytest.approx(stats.sem(scores, ddof=1), rel=1e-9, abs=1e-9)


@given(several, st.floats(0.5, 0.999))
def test_the_interval_is_scipys(scores: list[float], confidence: float) -> None:
    ours = intervals.t_interval(scores, confidence=confidence)
    mean, sem, n = np.mean(scores), stats.sem(scores, ddof=1), len(scores)
    half_width = stats.t.ppf((1 + confidence) / 2, n - 1) * sem
    assert ours == pytest.approx((mean - half_width, mean + half_width), rel=1e-6, abs=1e-6)


@given(several, st.randoms(use_true_random=False))
def test_the_order_of_the_scores_does_not_matter_to_the_last_bit(scores: list[float], shuffler: object) -> None:
    shuffled = list(scores)
    shuffler.shuffle(shuffled)  # type: ignore[attr-defined]
    assert intervals.mean(shuffled) == intervals.mean(scores)
    assert intervals.standard_error(shuffled) == intervals.standard_error(scores)


@given(several)
def test_equal_questions_get_equal_answers(scores: list[float]) -> None:
    assert intervals.t_interval(scores) == intervals.t_interval(list(scores))


def test_one_score_says_nothing_about_its_spread() -> None:
    assert intervals.mean([0.9]) == 0.9
    assert intervals.standard_error([0.9]) is None
    assert intervals.t_interval([0.9]) is None


@pytest.mark.parametrize("scores", [[], [0.5, float("nan")], [0.5, float("inf")], [[0.5, 0.6]]])
def test_what_is_not_a_row_of_finite_scores_is_refused(scores: list[float]) -> None:
    for estimator in (
        intervals.mean,
        intervals.standard_error,
        intervals.t_interval,
    ):
        with pytest.raises(ValueError, match="non-empty array of finite numbers"):
            estimator(scores)


@pytest.mark.parametrize("confidence", [0, 1, 95])
def test_a_confidence_outside_zero_and_one_is_refused(confidence: float) -> None:
    with pytest.raises(ValueError, match=r"confidence: must be in \(0, 1\)"):
        intervals.t_interval([0.1, 0.2], confidence=confidence)
