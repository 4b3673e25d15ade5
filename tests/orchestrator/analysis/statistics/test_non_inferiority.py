from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from orchestrator.analysis.statistics.non_inferiority import non_inferiority, non_inferiority_of


def test_bound_and_p_value_are_those_of_scipys_one_sided_test() -> None:
    differences = np.random.default_rng(0).normal(-0.002, 0.004, 9)
    theirs = stats.ttest_1samp(differences, -0.01, alternative="greater")
    found = non_inferiority(differences, 0.01)
    assert found.lower_bound == pytest.approx(theirs.confidence_interval(0.95).low)
    assert found.p_value == pytest.approx(theirs.pvalue)
    assert found.holds is True
    assert non_inferiority(differences, 0.001).holds is False


def test_the_claim_holds_where_p_is_small_and_nowhere_else() -> None:
    rng = np.random.default_rng(1)
    for _ in range(200):
        found = non_inferiority(rng.normal(-0.005, 0.01, 5), 0.01)
        assert found.p_value is not None
        assert found.holds == (found.p_value < 0.05)


def test_a_method_that_is_worse_by_the_margin_is_waved_through_one_time_in_twenty() -> None:
    rng = np.random.default_rng(2)
    passed = [non_inferiority(rng.normal(-0.01, 0.005, 6), 0.01).holds for _ in range(2000)]
    assert 0.035 <= np.mean(passed) <= 0.065


def test_one_difference_gives_no_answer() -> None:
    found = non_inferiority([0.02], 0.01)
    assert (found.difference, found.lower_bound, found.holds, found.p_value) == (0.02, None, None, None)


def test_without_spread_the_difference_itself_is_the_bound() -> None:
    assert non_inferiority_of(-0.005, 0.0, 2, 0.01).holds is True
    assert non_inferiority_of(-0.02, 0.0, 2, 0.01).p_value == 1.0


@pytest.mark.parametrize("margin", [0, -0.01, float("nan"), float("inf")])
def test_a_margin_that_is_none_is_refused(margin: float) -> None:
    with pytest.raises(ValueError, match="margin: must be a number > 0"):
        non_inferiority([0.1, 0.2], margin)
