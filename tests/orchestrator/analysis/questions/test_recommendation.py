"""The wishes that a recommendation takes, and the reason that it gives."""

from __future__ import annotations

from typing import Any

import pytest
from scipy import stats

from orchestrator.analysis.results import Results
from trainables.faults import FaultsError

FULL = {"method": "full_finetuning", "learning_rate": 3e-5}
LARGE = {"method": "adapter", "adapter_size": 64, "learning_rate": 3e-4}
SMALL = {"method": "adapter", "adapter_size": 8, "learning_rate": 3e-4}
BEST, NEAR, FAR = [0.94, 0.95, 0.96], [0.944, 0.945, 0.946], [0.93, 0.931, 0.932]


@pytest.fixture
def results(synthetic: Any) -> Results:
    rows = [
        *synthetic.scored(FULL, BEST, duration_s=50.0),
        *synthetic.scored(LARGE, NEAR, duration_s=30.0),
        *synthetic.scored(SMALL, FAR, duration_s=40.0),
    ]
    return synthetic.results(rows)  # type: ignore[no-any-return]


def one(table: Any) -> dict[str, Any]:
    (row,) = table.to_pylist()
    return row  # type: ignore[no-any-return]


def test_the_reason_is_given_in_words_and_numbers(results: Results) -> None:
    row = one(results.recommend())
    assert row["adapter_size"] == 64
    assert row["why"].startswith(
        "The smallest of 3 configurations within one standard error (0.006) of the best on validation: 0.945 ± 0.001, "
        "0.005 from the 0.950 of full_finetuning, with "
    )
    expected = stats.ttest_ind([v - 0.1 for v in NEAR], [v - 0.1 for v in BEST], equal_var=False)
    interval = expected.confidence_interval(0.95)
    assert row["difference"] == pytest.approx(-0.005)
    assert (row["difference_low"], row["difference_high"]) == pytest.approx((interval.low, interval.high))
    assert f"{100 * row['share_kept']:.0f} % of the time" in row["why"]
    assert 0.2 < row["share_kept"] < 0.9


def test_a_distance_takes_the_place_of_the_standard_error(results: Results) -> None:
    row = one(results.recommend(within=0.02))
    assert row["adapter_size"] == 8
    assert "within 0.02 of the best" in row["why"]
    assert "does not show with 95 % confidence that it is less than 0.02 worse" in row["why"]
    assert "which shows with 95 % confidence" in one(results.recommend(within=0.06))["why"]
    exact = one(results.recommend(within=0))
    assert exact["method"] == "full_finetuning"
    assert exact["why"].startswith("The best of 3 configurations on validation (0.950 ± 0.006). Nothing smaller is")


@pytest.mark.parametrize(("best", "near", "within"), [(0.9, 0.89, 0.01), (0.889, 0.839, 0.05), (0.3, 0.1, 0.2)])
def test_a_score_at_just_the_distance_is_within_it(synthetic: Any, best: float, near: float, within: float) -> None:
    """Whatever the difference of the two is rounded to."""
    rows = [*synthetic.scored(FULL, [best] * 3), *synthetic.scored(SMALL, [near] * 3)]
    assert one(synthetic.results(rows).recommend(within=within))["method"] == "adapter"
    assert one(synthetic.results(rows).recommend(within=within - 1e-9))["method"] == "full_finetuning"


def test_the_fastest_can_be_preferred(results: Results) -> None:
    row = one(results.recommend(within=0.02, prefer="seconds"))
    assert row["adapter_size"] == 64
    assert "in 30 s of training instead of 50 s" in row["why"]


def test_a_limit_of_parameters_is_kept_and_the_best_of_all_stands_beside_it(results: Results) -> None:
    most = one(results.recommend(within=0.02))["trained_params"]
    row = one(results.recommend(max_params=most))
    assert (row["adapter_size"], row["best_method"]) == (8, "full_finetuning")
    assert row["why"].startswith(f"The only one of 1 configuration with at most {most:,} trained parameters")
    assert row["difference"] == pytest.approx(-0.019)
    nothing = one(results.recommend(max_params=1000))
    assert (nothing["task"], nothing["config_id"], nothing["best_method"]) == ("trec", None, "full_finetuning")
    assert nothing["why"] == (
        f"None of 3 configurations has at most 1,000 trained parameters; the smallest has {most:,}."
    )


def test_with_one_seed_the_reason_says_so(synthetic: Any) -> None:
    row = one(synthetic.results([*synthetic.scored(FULL, [0.95]), *synthetic.scored(SMALL, [0.949])]).recommend())
    assert "With one seed its uncertainty is unknown, so nothing smaller counts as good as it." in row["why"]
    assert row["share_kept"] is row["difference"] is None


def test_a_clear_choice_is_kept_by_every_draw_of_the_seeds(synthetic: Any) -> None:
    rows = [*synthetic.scored(FULL, [0.95, 0.951, 0.952]), *synthetic.scored(SMALL, [0.7, 0.71, 0.72])]
    assert one(synthetic.results(rows).recommend())["share_kept"] == 1.0


def test_every_fault_of_a_wish_is_told_at_once(results: Results) -> None:
    with pytest.raises(FaultsError) as refusal:
        results.recommend(within=-0.1, max_params=0, prefer="second")
    assert [fault.split(":")[0] for fault in refusal.value.faults] == ["within", "max_params", "prefer"]
    assert "did you mean 'seconds'" in refusal.value.faults[2]
