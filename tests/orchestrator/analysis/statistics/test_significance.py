from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from orchestrator.analysis.statistics import significance


@pytest.mark.parametrize("alternative", ["two-sided", "greater"])
@pytest.mark.parametrize("seed", range(4))
def test_the_exact_sign_flip_test_is_scipys(alternative: Any, seed: int) -> None:
    differences = np.random.default_rng(seed).normal(0.005, 0.01, 7)
    theirs = stats.permutation_test(
        (differences,), np.mean, permutation_type="samples", alternative=alternative, n_resamples=np.inf
    )
    ours = significance.sign_flip_test(differences, alternative=alternative)
    assert ours.is_exact
    assert ours.p_value == pytest.approx(theirs.pvalue, abs=1e-12)


def test_the_monte_carlo_test_of_deepsig_agrees(golden: dict[str, Any]) -> None:
    differences = np.subtract(golden["task_means_first"], golden["task_means_second"])
    found = significance.sign_flip_test(differences, alternative="greater")
    assert found.p_value == pytest.approx(golden["deepsig_permutation_greater"], abs=0.01)  # of 20,000 draws


@pytest.mark.parametrize(("num_tasks", "least"), [(1, 1.0), (3, 0.25), (5, 0.0625), (6, 0.03125)])
def test_so_many_tasks_cannot_give_less(num_tasks: int, least: float) -> None:
    found = significance.sign_flip_test(np.linspace(0.1, 0.2, num_tasks))
    assert found.p_value == found.smallest_p == significance.smallest_p(num_tasks) == least


def test_beyond_the_exact_number_signs_are_drawn_by_the_generator_given() -> None:
    differences = np.random.default_rng(0).normal(0.004, 0.01, 24)

    def ask(seed: int) -> significance.SignFlip:
        return significance.sign_flip_test(differences, rng=np.random.default_rng(seed), num_resamples=20_000)

    assert ask(1) == ask(1)
    assert not ask(1).is_exact
    near = stats.ttest_1samp(differences, 0).pvalue
    assert ask(1).p_value == pytest.approx(near, abs=0.02)
    far = significance.sign_flip_test(np.full(24, 0.1), rng=np.random.default_rng(0), num_resamples=999)
    assert far.p_value == pytest.approx(1 / 1000)
    with pytest.raises(ValueError, match="rng: is needed to draw signs for more than 20 tasks"):
        significance.sign_flip_test(differences)


def test_equal_sums_in_another_order_are_ties() -> None:
    assert significance.sign_flip_test([0.1, 0.2, 0.3]).p_value == 0.25
    assert significance.sign_flip_test([0.0, 0.0]).p_value == 1.0


def test_false_alarms_are_as_rare_as_promised() -> None:
    rng = np.random.default_rng(0)
    alarms = [significance.sign_flip_test(rng.normal(0, 1, 8)).p_value <= 0.05 for _ in range(1500)]
    assert 0.03 <= np.mean(alarms) <= 0.06


def test_holm_is_that_of_statsmodels(golden: dict[str, Any]) -> None:
    assert significance.holm(golden["p"]) == pytest.approx(golden["statsmodels_holm"])


@given(st.lists(st.floats(0, 1), min_size=1, max_size=9))
def test_holms_values_keep_the_order_and_lie_between_the_plain_ones_and_bonferronis(values: list[float]) -> None:
    adjusted = significance.holm(values)
    assert (adjusted >= values).all()
    assert (adjusted <= np.minimum(1, np.array(values) * len(values))).all()
    order = np.argsort(values)
    assert (np.diff(adjusted[order]) >= 0).all()


def test_what_is_no_p_value_is_refused() -> None:
    with pytest.raises(ValueError, match=r"must be in \[0, 1\]"):
        significance.holm([0.5, 1.5])
    with pytest.raises(ValueError, match="'two-sided' or 'greater'"):
        significance.sign_flip_test([0.1], alternative="less")  # type: ignore[arg-type]


def test_mcnemar_is_that_of_statsmodels(golden: dict[str, Any]) -> None:
    first = np.repeat([True, True, False, False], [50, 8, 21, 30])
    second = np.repeat([True, False, True, False], [50, 8, 21, 30])
    found = significance.mcnemar(first, second)
    assert (found.only_first_right, found.only_second_right) == (8, 21)
    assert found.p_value == pytest.approx(golden["statsmodels_mcnemar_8_21"])
    assert significance.mcnemar(first, first).p_value == 1.0
    with pytest.raises(ValueError, match="as many rows"):
        significance.mcnemar(first, second[1:])


def test_the_paired_bootstrap_is_close_to_the_paired_t_test_on_many_rows() -> None:
    rng = np.random.default_rng(4)
    second = rng.random(400) < 0.8
    first = np.where(rng.random(400) < 0.1, ~second, second)
    found = significance.paired_bootstrap(first, second, rng=np.random.default_rng(0), num_resamples=4000)
    paired = stats.ttest_rel(first.astype(float), second.astype(float))
    assert found.difference == pytest.approx(first.mean() - second.mean())
    assert (found.low, found.high) == pytest.approx(tuple(paired.confidence_interval()), abs=0.004)
    assert found.p_value == pytest.approx(paired.pvalue, abs=0.02)
    again = significance.paired_bootstrap(first, second, rng=np.random.default_rng(0), num_resamples=4000)
    assert again == found


def test_any_metric_of_rows_can_be_compared() -> None:
    labels = np.arange(200) % 2
    right, half = np.stack([labels, labels], axis=1), np.stack([labels, np.ones(200, dtype=int)], axis=1)

    def recall_of_zero(rows: np.ndarray) -> float:
        return float((rows[rows[:, 0] == 0, 1] == 0).mean())

    found = significance.paired_bootstrap(
        right,
        half,
        rng=np.random.default_rng(0),
        statistic=lambda a, b: recall_of_zero(a) - recall_of_zero(b),
        num_resamples=99,
    )
    assert (found.difference, found.low, found.high) == (1.0, 1.0, 1.0)
    assert found.p_value == pytest.approx(0.02)


@pytest.mark.parametrize("seed", range(5))
def test_with_one_seed_the_sign_flip_test_over_rows_is_mcnemars(seed: int) -> None:
    rng = np.random.default_rng(seed)
    first, second = rng.random(80) < 0.8, rng.random(80) < 0.6
    found = significance.sign_flip_over_rows(first[None], second[None])
    assert found == pytest.approx(significance.mcnemar(first, second).p_value, rel=1e-9)


@pytest.mark.parametrize(("ours", "theirs"), [(3, 3), (2, 3), (1, 4)])
def test_the_sign_flip_test_over_rows_looks_at_every_assignment_of_signs(ours: int, theirs: int) -> None:
    rng = np.random.default_rng(ours)
    first, second = rng.random((ours, 12)) < 0.7, rng.random((theirs, 12)) < 0.5
    differences = first.mean(axis=0) - second.mean(axis=0)
    expected = significance.sign_flip_test(differences).p_value
    assert significance.sign_flip_over_rows(first, second) == pytest.approx(expected)
    assert significance.sign_flip_over_rows(second, first) == pytest.approx(expected)


def test_models_that_are_right_on_the_same_rows_do_not_differ() -> None:
    right = np.array([[True, False, True], [True, True, False]])
    assert significance.sign_flip_over_rows(right, right[::-1]) == 1.0


def test_of_very_many_rows_the_sign_flip_test_takes_the_normal_distribution(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    first, second = rng.random((3, 4000)) < 0.81, rng.random((3, 4000)) < 0.8
    exact = significance.sign_flip_over_rows(first, second)
    monkeypatch.setattr(significance, "MOST_DISCORDANT", 10)
    assert significance.sign_flip_over_rows(first, second) == pytest.approx(exact, abs=0.02)


def test_the_sign_flip_test_over_rows_errs_as_often_as_it_says() -> None:
    """Two methods that are equally good, whose seeds differ on every row for themselves."""
    rng = np.random.default_rng(3)
    found = []
    for _ in range(600):
        hard = rng.random(120)
        found.append(significance.sign_flip_over_rows(*(0.8 + 0.2 * rng.normal(size=(2, 3, 120)) > hard)))
    assert 0.03 <= np.mean(np.array(found) <= 0.05) <= 0.07
