from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest

from orchestrator.analysis.missing import missing_of
from tests.orchestrator.analysis.large_sweep import TASKS, large_results, large_rows


def test_it_is_the_mean_of_the_best_over_all_subsets() -> None:
    rows = large_rows(TASKS[:1], ("lora", "layernorm"))
    results = large_results(rows)
    for method in ("lora", "layernorm"):
        own = [row for row in results.tried().to_pylist() if row["method"] == method]
        asked = [row for row in results.expected_validation().to_pylist() if row["method"] == method]
        assert [row["num_configs"] for row in asked] == list(range(1, len(own) + 1))
        for row in asked:
            subsets = list(itertools.combinations(own, row["num_configs"]))
            best = [max(subset, key=lambda each: each["validation_mean"]) for subset in subsets]
            assert row["expected_validation"] == pytest.approx(np.mean([each["validation_mean"] for each in best]))
            assert row["expected_score"] == pytest.approx(np.mean([each["test_mean"] for each in best]))
            spent = sum(each["duration_s"] for each in rows if each["method"] == method)
            assert row["engine_seconds"] == pytest.approx(row["num_configs"] * spent / len(own))


def test_unequal_budgets_are_named() -> None:
    table = large_results(large_rows(TASKS[:1], ("lora", "layernorm"))).expected_validation()
    assert missing_of(table) == ["equal budgets: beyond 3 configurations there is nothing of layernorm"]


def test_trials_that_train_together_share_their_engine(synthetic: Any) -> None:
    rows = [
        row
        for rate in (3e-4, 1e-3)
        for row in synthetic.scored(
            {"method": "adapter", "adapter_size": 8, "learning_rate": rate}, [0.8, 0.9], duration_s=40.0, pack_size=4.0
        )
    ]
    found = synthetic.results(rows).expected_validation().to_pylist()
    assert [row["engine_seconds"] for row in found] == [20.0, 40.0]  # of two seeds each


def test_what_was_pruned_is_named_since_the_rest_is_no_fair_draw(synthetic: Any) -> None:
    options = [{"method": "adapter", "adapter_size": 8, "learning_rate": rate} for rate in (1e-4, 3e-4, 1e-3)]
    first, second, third = (synthetic.scored(each, [0.8]) for each in options)
    pruned = {**synthetic.fail(third[0]), "status": "pruned"}
    results = synthetic.results([*first, *second, pruned])
    table = results.expected_validation()
    assert {(row["num_configs_completed"], row["num_configs_tried"]) for row in table.to_pylist()} == {(2, 3)}
    assert results.best()["num_configs_tried"].to_pylist() == [3]
    assert missing_of(table) == ["adapter: 1 configuration without a completed trial, so of the others alone"]
