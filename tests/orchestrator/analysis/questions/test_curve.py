from __future__ import annotations

import dataclasses
import statistics
from typing import Any

import pytest

from orchestrator.analysis.results import Results
from trainables import metrics
from trainables.faults import FaultsError

ADAPTER = {"method": "adapter", "adapter_size": 8, "learning_rate": 1e-3}
FULL = {"method": "full_finetuning", "learning_rate": 1e-4}


def test_the_curve_agrees_with_a_computation_in_plain_python(finished: Results) -> None:
    trials = [row for row in finished.trials().to_pylist() if row["status"] == "completed"]

    def chosen(task: str, method: str, size: int | None = None) -> list[dict]:
        groups: dict[str, list[dict]] = {}
        for trial in trials:
            if (trial["task"], trial["method"]) == (task, method) and size in (
                None,
                trial["trained_params_without_head"],
            ):
                groups.setdefault(trial["config_id"], []).append(trial)
        covered = [group for group in groups.values() if len(group) == max(map(len, groups.values()))]
        return max(covered, key=lambda group: statistics.fmean(t["validation_score"] for t in group))

    def reported(group: list[dict]) -> float:
        split = "validation_score" if group[0]["task"] == "glue/cola" else "test_score"
        return statistics.fmean(trial[split] for trial in group)

    tasks = sorted({trial["task"] for trial in trials})
    curve = finished.curve(quantiles=(0.1, 0.5, 0.9)).to_pylist()
    sizes = {(t["method"], t["trained_params_without_head"]) for t in trials}
    assert {(row["method"], row["trained_params_without_head"]) for row in curve} == sizes
    assert len(curve) == len(sizes) == 8
    for row in curve:
        groups = [chosen(task, row["method"], row["trained_params_without_head"]) for task in tasks]
        deltas = sorted(
            reported(group) - reported(chosen(task, "full_finetuning"))
            for task, group in zip(tasks, groups, strict=True)
        )
        for name, rank in (("p10", 0.3), ("p50", 1.5), ("p90", 2.7)):  # quantile * (4 tasks - 1)
            below = int(rank)
            expected = deltas[below] + (rank - below) * (deltas[below + 1] - deltas[below])
            assert row[name] == pytest.approx(expected, abs=1e-12)
        assert row["trained_params"] == round(statistics.fmean(group[0]["trained_params"] for group in groups))
        assert (row["num_tasks"], row["num_tasks_on_validation"], row["num_seeds"]) == (4, 1, 3)
        assert (row["metric"], row["normalize_to"]) == ("accuracy", "full_finetuning")


def test_the_reference_is_zero_at_every_percentile(finished: Results) -> None:
    (row,) = [row for row in finished.curve().to_pylist() if row["method"] == "full_finetuning"]
    assert (row["p20"], row["p50"], row["p80"]) == (0.0, 0.0, 0.0)


def test_one_point_of_the_curve_joins_tasks_whose_heads_differ(synthetic: Any) -> None:
    rows = synthetic.scored(ADAPTER, [0.9], "two") + synthetic.scored(ADAPTER, [0.7], "six")
    for row, head in zip(rows, (770, 2310), strict=True):
        row["trained_params"] = row["trained_params_without_head"] + head
    (point,) = synthetic.results(rows).curve(quantiles=(0.5,), normalize_to=None).to_pylist()
    assert point["trained_params"] == point["trained_params_without_head"] + 1540
    assert point["p50"] == pytest.approx(0.7)  # test scores are ten points below validation


def test_a_task_without_the_reference_is_left_out(synthetic: Any) -> None:
    rows = synthetic.scored(ADAPTER, [0.9], "with") + synthetic.scored(FULL, [0.95], "with")
    rows += synthetic.scored(ADAPTER, [0.5], "without")
    results = synthetic.results(rows)
    adapter, full = results.curve().to_pylist()
    assert (adapter["num_tasks"], full["num_tasks"]) == (1, 1)
    assert adapter["p50"] == pytest.approx(-0.05)
    points = {(p["task"], p["method"]): p["delta"] for p in results.points().to_pylist()}
    assert points["without", "adapter"] is None


def test_where_no_task_has_the_reference_the_curve_says_what_to_do(synthetic: Any) -> None:
    rows = synthetic.scored(ADAPTER, [0.9])
    with pytest.raises(FaultsError, match=r"unknown method of this sweep to normalize to 'full_finetuning'.*None for"):
        synthetic.results(rows).curve()
    rows += [synthetic.fail(row) for row in synthetic.scored(FULL, [0.9])]
    with pytest.raises(FaultsError, match=r"no task has a completed trial of method 'full_finetuning'.*run one"):
        synthetic.results(rows).curve()


def test_every_fault_of_a_curve_is_named_at_once(finished: Results) -> None:
    with pytest.raises(FaultsError) as caught:
        finished.curve(quantiles=(0.5, 20, "x"), normalize_to="full", split="train")  # type: ignore[arg-type]
    faults = "\n".join(caught.value.faults)
    assert "quantiles: each must be a number in [0, 1], but got 20" in faults
    assert "but got 'x'" in faults
    assert "unknown method of this sweep to normalize to 'full'" in faults
    assert "unknown split to score on 'train'" in faults
    with pytest.raises(FaultsError, match="quantiles: must differ"):
        finished.curve(quantiles=(0.5, 0.5))


def test_a_quantile_names_its_column(finished: Results) -> None:
    assert finished.curve(quantiles=(0.025, 0.2, 1)).column_names[-3:] == ["p2.5", "p20", "p100"]


def test_a_curve_of_one_split_scores_on_it_throughout(finished: Results) -> None:
    on_test = finished.curve(split="test")
    assert set(on_test["num_tasks"].to_pylist()) == {3}  # glue/cola has no test scores
    assert set(on_test["num_tasks_on_validation"].to_pylist()) == {0}
    on_validation = finished.curve(split="validation")
    assert set(on_validation["num_tasks_on_validation"].to_pylist()) == {4}


def test_where_less_is_better_a_positive_delta_is_still_better(synthetic: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    error = dataclasses.replace(metrics.get("accuracy"), name="error_rate", mode="min")
    monkeypatch.setitem(metrics.METRICS, "error_rate", error)
    rows = synthetic.scored(ADAPTER, [0.2], metric="error_rate") + synthetic.scored(FULL, [0.3], metric="error_rate")
    adapter, _ = synthetic.results(rows).curve().to_pylist()
    assert adapter["p50"] == pytest.approx(0.1)


def test_backbones_are_normalized_to_their_own_reference(synthetic: Any) -> None:
    rows = []
    for backbone, level in (("large", 0.9), ("small", 0.7)):
        for options, gain in ((ADAPTER, 0.0), (FULL, 0.02)):
            name = f"{backbone}-{options['method']}"
            own = synthetic.scored(options, [level + gain], backbone=backbone, config_id=name, trial_id=name)
            rows += own
    curve = synthetic.results(rows).curve().to_pylist()
    assert [(row["backbone"], row["method"]) for row in curve] == [
        ("large", "adapter"),
        ("large", "full_finetuning"),
        ("small", "adapter"),
        ("small", "full_finetuning"),
    ]
    assert [row["p50"] for row in curve] == pytest.approx([-0.02, 0, -0.02, 0])
