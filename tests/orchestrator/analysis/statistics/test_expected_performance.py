from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.analysis.statistics.expected_performance import (
    chances_of_being_best,
    expected_best,
    expected_best_by_seconds,
)

scores = st.lists(st.integers(0, 6), min_size=1, max_size=6)


@given(scores)
def test_without_replacement_it_is_the_mean_over_all_subsets(values: list[int]) -> None:
    for n in range(1, len(values) + 1):
        by_hand = np.mean([max(subset) for subset in itertools.combinations(values, n)])
        assert expected_best(values, [n]) == pytest.approx([by_hand])


@given(scores)
def test_the_plug_in_estimate_is_the_mean_over_all_draws_with_replacement(values: list[int]) -> None:
    for n in (1, 2, 3):
        by_hand = np.mean([max(drawn) for drawn in itertools.product(values, repeat=n)])
        assert expected_best(values, [n], estimator="plug_in") == pytest.approx([by_hand])


@given(scores, st.data())
def test_the_reported_score_is_that_of_the_best_on_validation(values: list[int], data: st.DataObject) -> None:
    reported = data.draw(st.lists(st.integers(0, 9), min_size=len(values), max_size=len(values)))
    for n in range(1, len(values) + 1):
        picked = []
        for subset in itertools.combinations(range(len(values)), n):
            best = max(values[i] for i in subset)
            picked.append(np.mean([reported[i] for i in subset if values[i] == best]))
        assert expected_best(values, [n], reported=reported) == pytest.approx([np.mean(picked)])


@pytest.mark.parametrize("estimator", ["unbiased", "plug_in"])
def test_the_chances_of_all_add_up_to_one(estimator: str) -> None:
    values = np.random.default_rng(0).integers(0, 50, 400)
    for n in (1, 7, 400):
        assert chances_of_being_best(values, n, estimator=estimator).sum() == pytest.approx(1)  # type: ignore[arg-type]


def test_the_plug_in_estimate_is_too_low_and_the_unbiased_one_is_not() -> None:
    rng = np.random.default_rng(0)
    truth = 5 / 6  # the expected maximum of five uniform numbers
    drawn = [rng.random(8) for _ in range(4000)]
    unbiased = np.mean([expected_best(values, [5])[0] for values in drawn])
    plug_in = np.mean([expected_best(values, [5], estimator="plug_in")[0] for values in drawn])
    assert unbiased == pytest.approx(truth, abs=0.004)
    assert plug_in < truth - 0.02


def test_engine_seconds_buy_as_many_trials_as_fit() -> None:
    values, seconds = [0.5, 0.7, 0.9], [5.0, 10.0, 15.0]
    found = expected_best_by_seconds(values, seconds, [9.9, 10, 25, 30, 40])
    assert np.isnan(found[[0, 4]]).all()
    assert found[1:4] == pytest.approx(expected_best(values, [1, 2, 3]))
    more = expected_best_by_seconds(values, seconds, [40], estimator="plug_in")
    assert more == pytest.approx(expected_best(values, [4], estimator="plug_in"))


@pytest.mark.parametrize("budget", [0, 1.5, 4])
def test_a_budget_that_is_no_number_of_configurations_is_refused(budget: float) -> None:
    with pytest.raises(ValueError, match="budgets: "):
        expected_best([0.1, 0.2, 0.3], [budget])


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(ValueError, match="'unbiased' or 'plug_in'"):
        expected_best([0.1], [1], estimator="biased")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="seconds: must not be negative"):
        expected_best_by_seconds([0.1, 0.2], [-1, 2], [1])
    with pytest.raises(ValueError, match="as many configurations"):
        expected_best([0.1, 0.2], [1], reported=[0.1])
