"""`Results.compare`, `comparisons` and `pareto`, against numbers worked out by hand or by scipy."""

from __future__ import annotations

import dataclasses
import itertools
from typing import Any

import numpy as np
import pytest
from scipy import stats

from orchestrator.analysis.questions.comparison import PAIRS_SCHEMA, SCHEMA
from orchestrator.analysis.results import Results
from orchestrator.analysis.statistics.expected_performance import expected_best
from trainables import metrics
from trainables.faults import FaultsError

FULL = {"method": "full_finetuning", "learning_rate": 3e-5}
ADAPTER = {"method": "adapter", "adapter_size": 64, "learning_rate": 3e-4}
LARGER = {"method": "adapter", "adapter_size": 128, "learning_rate": 3e-4}
A, B = [0.94, 0.95, 0.96], [0.93, 0.95, 0.94]


def test_a_row_a_task_and_one_over_all(finished: Results) -> None:
    *rows, total = finished.compare("adapter", "full_finetuning").to_pylist()
    assert [row["task"] for row in rows] == ["corporate_messaging", "glue/cola", "sms_spam", "trec"]
    assert [row["split"] for row in rows] == ["test", "validation", "test", "test"]
    best = {(row["task"], row["method"]): row for row in finished.best().to_pylist()}
    for row in rows:
        ours, theirs = best[row["task"], "adapter"], best[row["task"], "full_finetuning"]
        name = f"{row['split']}_mean"
        assert (row["a_config_id"], row["b_config_id"]) == (ours["config_id"], theirs["config_id"])
        assert row["difference"] == pytest.approx(ours[name] - theirs[name])
        assert (row["a_num_configs_tried"], row["b_num_configs_tried"]) == (6, 2)
        assert row["a_engine_seconds"] == ours["engine_seconds"]
    differences = [row["difference"] for row in rows]
    assert (total["task"], total["num_tasks"], total["interval_over"]) == (None, 4, "tasks")
    assert total["difference"] == pytest.approx(np.mean(differences))
    expected = stats.t.interval(0.95, 3, np.mean(differences), stats.sem(differences))
    assert (total["low"], total["high"]) == pytest.approx(expected)
    flips = stats.permutation_test((differences,), np.mean, permutation_type="samples", n_resamples=np.inf)
    assert total["p_value"] == pytest.approx(flips.pvalue)
    assert total["smallest_p"] == 0.125
    assert "With 4 tasks no p-value can be below 0.125." in total["note"]
    assert total["probability_of_improvement"] == pytest.approx(
        np.mean([row["probability_of_improvement"] for row in rows])
    )


def test_the_interval_of_a_task_is_welchs_over_seeds(synthetic: Any) -> None:
    results = synthetic.results([*synthetic.scored(ADAPTER, A), *synthetic.scored(FULL, B)])
    row = results.compare("adapter", "full_finetuning").to_pylist()[0]
    theirs = stats.ttest_ind(A, B, equal_var=False).confidence_interval(0.95)
    assert (row["low"], row["high"]) == pytest.approx((theirs.low, theirs.high))
    assert row["interval_over"] == "seeds"
    assert row["probability_of_improvement"] == pytest.approx(stats.mannwhitneyu(A, B).statistic / 9)
    assert (row["a_sem"], row["b_sem"]) == pytest.approx((stats.sem(A), stats.sem(B)))


def test_test_rows_widen_the_interval_of_an_accuracy(synthetic: Any) -> None:
    results = synthetic.results([*synthetic.scored(ADAPTER, A), *synthetic.scored(FULL, B)])
    seeds = results.compare("adapter", "full_finetuning").to_pylist()[0]
    both = results.compare("adapter", "full_finetuning", test_rows={"trec": 500}).to_pylist()[0]
    assert both["interval_over"] == "seeds and rows"
    assert both["difference"] == pytest.approx(seeds["difference"])
    assert both["low"] < seeds["low"]
    assert both["high"] > seeds["high"]


def test_swapping_the_sides_changes_the_sign_and_nothing_else(finished: Results) -> None:
    one, other = (
        finished.compare(*sides).to_pylist() for sides in (("adapter", "layernorm"), ("layernorm", "adapter"))
    )
    for ours, theirs in zip(one, other, strict=True):
        assert ours["difference"] == pytest.approx(-theirs["difference"])
        assert (ours["low"], ours["high"]) == pytest.approx((-theirs["high"], -theirs["low"]))
        assert ours["p_value"] == theirs["p_value"]
        assert ours["probability_of_improvement"] == pytest.approx(1 - theirs["probability_of_improvement"])


def test_where_less_is_better_a_lower_score_is_a_positive_difference(
    synthetic: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    error = dataclasses.replace(metrics.get("accuracy"), name="error_rate", mode="min")
    monkeypatch.setitem(metrics.METRICS, "error_rate", error)
    rows = [*synthetic.scored(ADAPTER, A, metric="error_rate"), *synthetic.scored(FULL, B, metric="error_rate")]
    row = synthetic.results(rows).compare("full_finetuning", "adapter").to_pylist()[0]
    assert row["difference"] == pytest.approx(np.mean(A) - np.mean(B))
    assert row["low"] < row["difference"] < row["high"]
    assert row["probability_of_improvement"] > 0.5
    assert (row["a_score"], row["b_score"]) == pytest.approx((np.mean(B) - 0.1, np.mean(A) - 0.1))


def test_budgets_are_said_to_differ_and_can_be_equalised(synthetic: Any) -> None:
    rows = [*synthetic.scored(ADAPTER, A), *synthetic.scored(LARGER, [0.90, 0.91, 0.92]), *synthetic.scored(FULL, B)]
    results = synthetic.results(rows)
    plain = results.compare("adapter", "full_finetuning").to_pylist()[0]
    assert plain["budgets_differ"] is True
    assert "adapter tried 2 configurations with 3 seeds in" in plain["note"]
    assert plain["a_engine_seconds"] == pytest.approx(sum(row["duration_s"] for row in rows[:6]))
    equal = results.compare("adapter", "full_finetuning", equalise=True).to_pylist()[0]
    assert (equal["equalised_to"], equal["a_config_id"]) == (1, None)
    expected = expected_best([np.mean(A), 0.91], [1], reported=[np.mean(A) - 0.1, 0.81])[0]
    assert equal["a_score"] == pytest.approx(expected)
    assert equal["b_score"] == pytest.approx(plain["b_score"])
    assert "the expected best of 1 configuration on either side" in equal["note"]
    same = results.compare({"adapter_size": 64}, "full_finetuning").to_pylist()[0]
    assert (same["a_num_configs_tried"], same["b_num_configs_tried"]) == (1, 1)


def test_equal_budgets_change_nothing_where_they_are_equal(synthetic: Any) -> None:
    rows = [*synthetic.scored(ADAPTER, A, duration_s=10.0), *synthetic.scored(FULL, B, duration_s=10.5)]
    results = synthetic.results(rows)
    plain, equal = (results.compare("adapter", "full_finetuning", equalise=e).to_pylist()[0] for e in (False, True))
    assert plain["budgets_differ"] is equal["budgets_differ"] is False
    assert plain["note"] == ""
    for name in ("difference", "low", "high", "a_score", "b_score", "probability_of_improvement"):
        assert plain[name] == pytest.approx(equal[name])


def test_a_trial_in_a_pack_costs_its_share_of_the_engine(synthetic: Any) -> None:
    rows = [*synthetic.scored(ADAPTER, A, duration_s=80.0, pack_size=8.0), *synthetic.scored(FULL, B, duration_s=None)]
    row = synthetic.results(rows).compare("adapter", "full_finetuning").to_pylist()[0]
    assert row["a_engine_seconds"] == pytest.approx(30.0)
    assert row["b_engine_seconds"] is None


def test_non_inferiority_is_judged_by_the_margin_asked_for_or_declared(finished: Results, synthetic: Any) -> None:
    asked = finished.compare("adapter", "full_finetuning", margin=0.02).to_pylist()
    differences = [row["difference"] for row in asked[:-1]]
    bound = stats.ttest_1samp(differences, 0, alternative="greater").confidence_interval(0.95).low
    assert asked[-1]["lower_bound"] == pytest.approx(bound)
    assert asked[-1]["is_non_inferior"] is bool(bound > -0.02)
    declared = Results(finished.trials(), finished.epochs(), non_inferiority=("full_finetuning", 0.02))
    assert declared.compare("adapter", "full_finetuning").to_pylist() == asked
    assert declared.compare("adapter", "top_layers")["margin"].null_count == 5
    assert finished.compare("adapter", "full_finetuning")["is_non_inferior"].null_count == 5


def test_tasks_that_one_side_lacks_are_left_out_and_named(synthetic: Any) -> None:
    rows = [*synthetic.scored(ADAPTER, A), *synthetic.scored(FULL, B), *synthetic.scored(ADAPTER, A, task="sst2")]
    *found, total = synthetic.results(rows).compare("adapter", "full_finetuning").to_pylist()
    assert [row["task"] for row in found] == ["trec"]
    assert "only one side has completed trials there: sst2." in total["note"]
    assert (total["low"], total["p_value"], total["interval_over"]) == (None, 1.0, None)  # of one task
    nothing = synthetic.results(rows[3:]).compare("adapter", "full_finetuning")
    assert (len(nothing), nothing.schema) == (0, SCHEMA)


def test_a_task_on_which_both_sides_only_failed_is_said_to_lack_both(synthetic: Any) -> None:
    failed = [
        synthetic.fail(row)
        for options, scores in ((ADAPTER, A), (FULL, B))
        for row in synthetic.scored(options, scores, task="sst2")
    ]
    rows = [*synthetic.scored(ADAPTER, A), *synthetic.scored(FULL, B), *failed]
    *_, total = synthetic.results(rows).compare("adapter", "full_finetuning").to_pylist()
    assert "Left out, since neither side has completed trials there: sst2." in total["note"]


def test_with_one_seed_there_is_a_difference_and_no_interval(synthetic: Any) -> None:
    results = synthetic.results([*synthetic.scored(ADAPTER, [0.9]), *synthetic.scored(FULL, [0.8])])
    row = results.compare("adapter", "full_finetuning", margin=0.01).to_pylist()[0]
    assert row["difference"] == pytest.approx(0.1)
    assert row["low"] is row["interval_over"] is row["lower_bound"] is row["is_non_inferior"] is None


def test_every_fault_of_a_comparison_is_told_at_once(finished: Results) -> None:
    with pytest.raises(FaultsError) as refusal:
        finished.compare("adaptor", {"adapter_sise": 8}, split="dev", margin=0, test_rows={"trek": 0})
    assert len(refusal.value.faults) == 6
    told = "; ".join(refusal.value.faults)
    for expected in ("did you mean 'adapter'", "did you mean 'adapter_size'", "dev", "margin: must be", "trek", ">= 1"):
        assert expected in told
    with pytest.raises(FaultsError, match="must be the name of a method, or columns with their values"):
        finished.compare("adapter", {})
    with pytest.raises(FaultsError, match="unknown adapter_size of this sweep 7") as refusal:
        finished.compare({"method": "adaptor", "adapter_size": [8, 7]}, {"task": ["trec"], "learning_rate": {}})
    assert len(refusal.value.faults) == 3


def test_all_pairs_are_corrected_for_their_number(finished: Results) -> None:
    pairs = finished.comparisons().to_pylist()
    assert [(row["a"], row["b"]) for row in pairs[:2]] == [("adapter", "full_finetuning"), ("adapter", "layernorm")]
    assert len(pairs) == 6
    for row in pairs:
        alone = finished.compare(row["a"], row["b"]).to_pylist()[-1]
        assert {**row, "p_holm": None} == {**alone, "p_holm": None}
        assert row["p_holm"] >= row["p_value"]
    [one] = finished.comparisons(["layernorm", "adapter"], equalise=True).to_pylist()
    assert (one["a"], one["p_holm"]) == ("layernorm", one["p_value"])
    with pytest.raises(FaultsError, match="unknown method of this sweep 'adaptor'"):
        finished.comparisons(["adaptor"])


def test_an_empty_sweep_has_no_pairs_and_no_front(synthetic: Any, finished: Results) -> None:
    empty = synthetic.results([])
    assert (len(empty.compare("adapter", "layernorm")), len(empty.comparisons(["adapter", "layernorm"]))) == (0, 0)
    assert (len(empty.comparisons()), empty.comparisons().schema) == (0, PAIRS_SCHEMA)
    assert (len(empty.pareto()), empty.pareto().schema) == (0, finished.pareto().schema)


@pytest.mark.parametrize("cost", ["trained_params", "engine_seconds", "peak_memory_bytes"])
def test_the_front_holds_what_no_other_beats(cost: str, finished: Results) -> None:
    column = {"engine_seconds": "duration_s"}.get(cost, cost)
    tried: dict[str, dict[str, list[tuple[float, float]]]] = {}
    for row in finished.trials().to_pylist():
        if row["status"] == "completed":
            pair = (row[column], row["validation_score"])
            tried.setdefault(row["task"], {}).setdefault(row["config_id"], []).append(pair)
    expected = set()
    for configurations in tried.values():
        points = {name: np.mean(pairs, axis=0) for name, pairs in configurations.items() if len(pairs) == 3}
        for name, (price, score) in points.items():
            if not any(p <= price and s >= score and (p, s) != (price, score) for p, s in points.values()):
                expected.add(name)
    found = finished.pareto(cost).to_pylist()
    assert {row["config_id"] for row in found} == expected
    for above, row in itertools.pairwise(found):
        if above["task"] == row["task"]:
            assert above["cost_value"] < row["cost_value"]
            assert above["validation_mean"] < row["validation_mean"]


def test_an_unknown_cost_is_refused(finished: Results) -> None:
    with pytest.raises(FaultsError, match="unknown cost 'trained_parms'; did you mean 'trained_params'"):
        finished.pareto("trained_parms")
