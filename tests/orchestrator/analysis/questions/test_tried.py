from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest

from orchestrator.analysis.questions.tried import searched_of
from tests.orchestrator.analysis.large_sweep import TASKS, large_results, large_rows
from trainables import metrics


def test_every_configuration_has_a_row_with_its_distance_to_the_best_of_its_task() -> None:
    rows = large_rows(TASKS[:2], ("adapter", "lora"))
    table = large_results(rows).tried()
    assert searched_of(table) == ["adapter_size", "rank", "learning_rate"]
    means = {
        config: np.mean([row["validation_score"] for row in rows if row["config_id"] == config])
        for config in {row["config_id"] for row in rows}
    }
    tasks = {row["config_id"]: row["task"] for row in rows}
    for row in table.to_pylist():
        best = max(mean for config, mean in means.items() if tasks[config] == row["task"])
        assert row["loss_to_best"] == pytest.approx(best - means[row["config_id"]])
        assert row["loss_to_best"] >= 0
    assert len(table) == len(means)


def test_of_an_error_the_lowest_is_the_best(monkeypatch: pytest.MonkeyPatch) -> None:
    error = dataclasses.replace(metrics.get("accuracy"), name="error_rate", mode="min")
    monkeypatch.setitem(metrics.METRICS, "error_rate", error)
    rows = [{**row, "metric": "error_rate"} for row in large_rows(TASKS[:1], ("adapter",))]
    table = large_results(rows).tried().to_pylist()
    best = min(table, key=lambda row: row["validation_mean"])
    assert str(best["loss_to_best"]) == "0.0"  # and not -0.0, which tables would show
    assert all(row["loss_to_best"] >= 0 for row in table)


def test_a_trial_that_failed_took_no_time_to_train(synthetic: Any) -> None:
    first, second, third = synthetic.scored({"method": "layernorm", "learning_rate": 1e-3}, [0.8, 0.9, 0.7])
    rows = [{**first, "duration_s": 40.0}, {**second, "duration_s": 60.0}, synthetic.fail({**third, "duration_s": 1.0})]
    (row,) = synthetic.results(rows).tried().to_pylist()
    assert row["duration_s"] == 50.0
