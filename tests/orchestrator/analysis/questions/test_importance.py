from __future__ import annotations

import pytest

from orchestrator.analysis.missing import missing_of
from tests.orchestrator.analysis.large_sweep import TASKS, large_results, large_rows
from trainables.faults import FaultsError


def test_what_decides_the_score_is_what_is_important() -> None:
    rows = [
        {**row, "validation_score": 0.5 + 0.1 * (row["learning_rate"] == 1e-3) + 0.001 * row["seed"]}
        for row in large_rows(TASKS[:2], ("adapter",))
    ]
    found = large_results(rows).importance().to_pylist()
    assert [row["hyperparameter"] for row in found] == ["learning_rate", "adapter_size"]
    assert found[0]["importance"] > 0.95
    assert sum(row["importance"] for row in found) == pytest.approx(1)
    assert {(row["num_configs"], row["num_tasks"], row["num_seeds"]) for row in found} == {(24, 2, 3)}


def test_a_hard_task_counts_no_more_than_an_easy_one() -> None:
    """On one task the rate decides by 40 points, on the other the size by one: each explains half."""
    rows = [
        {
            **row,
            "validation_score": 0.3 + 0.4 * (row["learning_rate"] == 1e-3)
            if row["task"] == TASKS[0]
            else 0.9 + 0.01 * (row["adapter_size"] in (64, 256)),
        }
        for row in large_rows(TASKS[:2], ("adapter",), seeds=(0,))
    ]
    found = {row["hyperparameter"]: row["importance"] for row in large_results(rows).importance().to_pylist()}
    assert 0.3 < found["learning_rate"] < 0.7


def test_a_method_of_which_one_hyperparameter_varies_is_named() -> None:
    results = large_results(large_rows(TASKS[:2], ("layernorm",)))
    assert missing_of(results.importance()) == ["layernorm: only learning_rate varies, so nothing to share"]
    with pytest.raises(FaultsError, match="trek"):
        results.importance(task="trek")


@pytest.mark.parametrize("score", [0.5, 0.7, 0.1])
def test_where_all_score_the_same_nothing_is_shared(score: float) -> None:
    rows = [{**row, "validation_score": score} for row in large_rows(TASKS[:2], ("adapter",))]
    found = large_results(rows).importance()
    assert not len(found)
    assert missing_of(found) == ["adapter: every configuration scored the same, so nothing to share"]


def test_configurations_with_fewer_seeds_are_named() -> None:
    rows = large_rows(TASKS[4:6], ("adapter",))
    lacking = [row for row in rows if row["task"] == TASKS[4] or row["seed"] < 2]
    table = large_results(lacking).importance()
    assert {row["num_configs"] for row in table.to_pylist()} == {12}
    assert missing_of(table) == ["adapter: 12 of 24 configurations, which have fewer seeds"]
