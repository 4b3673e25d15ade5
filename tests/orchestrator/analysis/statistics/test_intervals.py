from __future__ import annotations

import math
from collections.abc import Callable

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


def test_welch_is_scipys() -> None:
    rng = np.random.default_rng(0)
    first, second = rng.normal(0.9, 0.01, 5), rng.normal(0.88, 0.03, 4)
    expected = stats.ttest_ind(first, second, equal_var=False).confidence_interval(0.9)
    found = intervals.welch(first, second)
    assert found is not None
    assert found.interval(0.9) == pytest.approx((expected.low, expected.high), rel=1e-9)
    assert found.mean == pytest.approx(first.mean() - second.mean(), rel=1e-12)
    assert intervals.welch(first, [0.9]) is None


def test_the_binomial_standard_error_is_that_of_five_hundred_rows() -> None:
    assert intervals.binomial_standard_error(0.955, 500) == pytest.approx(0.00927, abs=5e-6)
    assert intervals.binomial_standard_error(1.0, 10) == 0
    with pytest.raises(ValueError, match="at least one row"):
        intervals.binomial_standard_error(0.9, 0)


def test_seeds_and_rows_add_their_variances_and_rows_are_not_divided_by_seeds() -> None:
    scores = [0.94, 0.95, 0.96]
    found = intervals.estimate_over_seeds_and_rows(scores, 500)
    assert found is not None
    assert found.standard_error**2 == pytest.approx(np.var(scores, ddof=1) / 3 + 0.95 * 0.05 / 500, rel=1e-9)
    same = intervals.estimate_over_seeds_and_rows([0.95] * 30, 500)
    assert same is not None
    assert same.standard_error == pytest.approx(intervals.binomial_standard_error(0.95, 500))
    assert intervals.estimate_over_seeds_and_rows([0.95], 500) is None


def test_rows_widen_the_difference_of_two_sides() -> None:
    first, second = [0.94, 0.95, 0.96], [0.93, 0.93, 0.94]
    seeds, both = intervals.welch(first, second), intervals.welch_with_rows(first, second, 500)
    assert seeds is not None
    assert both is not None
    added = sum(np.mean(side) * (1 - np.mean(side)) / 500 for side in (first, second))
    assert both.standard_error**2 == pytest.approx(seeds.standard_error**2 + added)
    assert both.mean == seeds.mean


def test_the_crossed_variance_is_that_of_the_two_way_table() -> None:
    outcomes = np.random.default_rng(1).normal(size=(4, 50)) + np.arange(4)[:, None] + np.sin(np.arange(50))[None, :]
    found = intervals.estimate_over_rows(outcomes)
    assert found is not None
    by_seed = np.var(outcomes.mean(axis=1), ddof=1) / 4
    by_row = np.var(outcomes.mean(axis=0), ddof=1) / 50
    rest = outcomes - outcomes.mean(axis=1, keepdims=True) - outcomes.mean(axis=0, keepdims=True) + outcomes.mean()
    assert found.standard_error**2 == pytest.approx(by_seed + by_row - (rest**2).sum() / (3 * 49) / 200, rel=1e-9)
    assert found.mean == pytest.approx(outcomes.mean())
    assert intervals.estimate_over_rows(outcomes[:1]) is None


def test_where_all_seeds_agree_only_rows_scatter_and_where_rows_agree_only_seeds() -> None:
    row = np.array([1.0, 0, 1, 1, 0, 1])
    by_rows = intervals.estimate_over_rows(np.tile(row, (3, 1)))
    assert by_rows is not None
    assert by_rows.standard_error == pytest.approx(stats.sem(row))
    by_seeds = intervals.estimate_over_rows(np.tile(row[:, None], (1, 9)))
    assert by_seeds is not None
    assert by_seeds.standard_error == pytest.approx(stats.sem(row))


@pytest.mark.parametrize("num_seeds", [3, 5])
def test_students_interval_covers_the_mean_over_seeds(num_seeds: int, coverage: Callable[..., float]) -> None:
    share = coverage(lambda rng: intervals.t_interval(rng.normal(0.9, 0.01, num_seeds)), 0.9, 2000)
    assert 0.93 <= share <= 0.97


def test_welchs_interval_covers_the_difference(coverage: Callable[..., float]) -> None:
    def draw(rng: np.random.Generator) -> tuple[float, float]:
        return intervals.welch(rng.normal(0.9, 0.01, 5), rng.normal(0.88, 0.02, 4)).interval()  # type: ignore[union-attr]

    assert 0.93 <= coverage(draw, 0.02, 2000) <= 0.97


@pytest.mark.parametrize("spread", [0.0, 0.005, 0.01, 0.03])
@pytest.mark.parametrize("num_seeds", [3, 5])
def test_seeds_and_rows_together_are_covered_where_seeds_get_the_same_rows_wrong(
    spread: float, num_seeds: int, coverage: Callable[..., float]
) -> None:
    def draw(rng: np.random.Generator) -> tuple[float, float]:
        accuracies = 0.9 + rng.normal(0, spread, num_seeds)
        measured = (rng.random(500)[None, :] < accuracies[:, None]).mean(axis=1)
        return intervals.estimate_over_seeds_and_rows(measured, 500).interval()  # type: ignore[union-attr]

    assert 0.93 <= coverage(draw, 0.9, 2000) <= 0.97


@pytest.mark.parametrize(("of_seeds", "of_rows", "of_rest"), [(0.02, 0.3, 0.1), (0.01, 0.3, 0.3), (0.02, 0.1, 0.3)])
def test_the_outcomes_of_every_row_cover_seeds_and_rows(
    of_seeds: float, of_rows: float, of_rest: float, coverage: Callable[..., float]
) -> None:
    def draw(rng: np.random.Generator) -> tuple[float, float]:
        seeds, rows = rng.normal(0.9, of_seeds, (5, 1)), rng.normal(0, of_rows, (1, 300))
        return intervals.estimate_over_rows(seeds + rows + rng.normal(0, of_rest, (5, 300))).interval()  # type: ignore[union-attr]

    assert 0.93 <= coverage(draw, 0.9, 1500) <= 0.97


def test_the_difference_over_rows_takes_the_rest_out_once() -> None:
    rng = np.random.default_rng(4)
    row = np.sin(np.arange(50))
    first = rng.normal(size=(4, 50)) + np.arange(4)[:, None] + row
    second = rng.normal(size=(3, 50)) + np.arange(3)[:, None] + 0.5 * row
    found = intervals.difference_over_rows(first, second)
    assert found is not None
    expected = np.var(first.mean(axis=0) - second.mean(axis=0), ddof=1) / 50
    for table in (first, second):
        rest = table - table.mean(axis=0) - table.mean(axis=1, keepdims=True) + table.mean()
        expected += np.var(table.mean(axis=1), ddof=1) / len(table)
        expected -= (rest**2).sum() / ((len(table) - 1) * 49) / table.size
    assert found.standard_error**2 == pytest.approx(expected, rel=1e-9)
    assert found.mean == pytest.approx(first.mean() - second.mean())
    other = intervals.difference_over_rows(second, first)
    assert other is not None
    assert (other.mean, other.standard_error) == pytest.approx((-found.mean, found.standard_error))


def test_where_rows_do_not_matter_the_difference_is_welchs_and_where_seeds_do_not_that_of_the_rows() -> None:
    levels = np.array([0.9, 0.92, 0.97]), np.array([0.8, 0.85])
    found = intervals.difference_over_rows(*(np.tile(side[:, None], (1, 40)) for side in levels))
    welch = intervals.welch(*levels)
    assert found is not None
    assert welch is not None
    assert found.interval() == pytest.approx(welch.interval())
    rows = np.random.default_rng(5).random((2, 40)) < 0.7
    same = intervals.difference_over_rows(*(np.tile(side, (3, 1)) for side in rows))
    assert same is not None
    assert same.standard_error == pytest.approx(stats.sem(rows[0].astype(float) - rows[1]))


@pytest.mark.parametrize("num_rows", [2, 40, 3000])
def test_what_no_row_has_shown_is_not_ruled_out_on_other_rows(num_rows: int) -> None:
    right = np.ones((3, num_rows))
    rows = np.random.default_rng(5).random(num_rows) < 0.7
    most = stats.binomtest(0, num_rows).proportion_ci(0.95).high
    for found, mean in (
        (intervals.estimate_over_rows(right), 1.0),
        (intervals.estimate_over_rows(right - right, 5), 0.0),
        (intervals.difference_over_rows(right, right[:2]), 0.0),
        (intervals.difference_over_rows(np.tile(rows, (3, 1)), np.tile(rows, (2, 1))), 0.0),
        (intervals.difference_over_rows(right, 0 * right), 1.0),
    ):
        assert found is not None
        assert found.interval() == pytest.approx((mean - most, mean + most))
    # From the number of rows alone, with degrees of freedom of their own.
    for one, width in (
        (intervals.estimate_over_seeds_and_rows([1.0, 1.0], num_rows), most),
        (intervals.welch_with_rows([1.0, 1.0], [0.0, 0.0], num_rows), math.sqrt(2) * most),
    ):
        assert one is not None
        assert 1.96 * one.standard_error == pytest.approx(width, rel=1e-3)


def test_equal_scores_have_no_spread_whatever_their_mean_is_rounded_to() -> None:
    for score in (0.7, 0.1, 1 / 3):
        assert intervals.standard_error([score] * 3) == 0


def test_one_seed_or_other_rows_give_no_difference() -> None:
    outcomes = np.random.default_rng(6).random((3, 20))
    assert intervals.difference_over_rows(outcomes, outcomes[:1]) is None
    assert intervals.difference_over_rows(outcomes[:, :1], outcomes[:, :1]) is None
    with pytest.raises(ValueError, match="as many rows"):
        intervals.difference_over_rows(outcomes, outcomes[:, 1:])


@pytest.mark.parametrize(("num_seeds", "num_rows"), [(3, 200), (3, 500), (5, 200)])
@pytest.mark.parametrize(("of_seeds", "of_rows"), [(0.1, 3.0), (0.3, 3.0), (0.1, 1.0), (0.3, 1.0), (0.3, 0.0)])
@pytest.mark.thinned(2)
def test_the_difference_of_two_methods_covers_other_seeds_and_rows(
    of_seeds: float, of_rows: float, num_seeds: int, num_rows: int, coverage: Callable[..., float]
) -> None:
    """Accuracies of 0.9 and 0.85; what is hard for one method is mostly hard for the other."""
    thresholds = np.sqrt(1 + of_seeds**2 + of_rows**2) * stats.norm.ppf([0.9, 0.85])  # outside of `draw`: it is slow

    def draw(rng: np.random.Generator) -> tuple[float, float]:
        shared, own = np.sqrt(0.9) * rng.normal(size=num_rows), np.sqrt(0.1) * rng.normal(size=(2, num_rows))
        outcomes = [
            threshold
            + of_seeds * rng.normal(size=(num_seeds, 1))
            + of_rows * (shared + mine)
            + rng.normal(size=(num_seeds, num_rows))
            > 0
            for threshold, mine in zip(thresholds, own, strict=True)
        ]
        return intervals.difference_over_rows(*outcomes).interval()  # type: ignore[union-attr]

    assert 0.93 <= coverage(draw, 0.05, 1000) <= 0.97
