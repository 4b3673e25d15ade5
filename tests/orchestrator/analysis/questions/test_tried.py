from __future__ import annotations

import dataclasses

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
    assert best["loss_to_best"] == 0
    assert all(row["loss_to_best"] >= 0 for row in table)
