from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from orchestrator.analysis.missing import missing_of
from tests.orchestrator.analysis.large_sweep import TASKS, large_results, large_rows
from trainables import metrics
from trainables.faults import FaultsError


def test_cells_and_averages_are_recomputed_from_the_trials() -> None:
    rows = large_rows(TASKS[:3], ("adapter", "layernorm"))
    results = large_results(rows)
    chosen = {(row["task"], row["method"]): row["config_id"] for row in results.best().to_pylist()}
    table = results.score_table().to_pylist()
    for row in (row for row in table if row["task"] is not None):
        runs = np.array([r["test_score"] for r in rows if r["config_id"] == chosen[row["task"], row["method"]]])
        assert row["score"] == pytest.approx(runs.mean())
        assert row["score_sem"] == pytest.approx(runs.std(ddof=1) / np.sqrt(3))
    for row in (row for row in table if row["task"] is None):
        own = [r for r in table if r["method"] == row["method"] and r["task"] is not None]
        assert row["score"] == pytest.approx(np.mean([r["score"] for r in own]))
        assert row["score_sem"] == pytest.approx(np.sqrt(sum(r["score_sem"] ** 2 for r in own)) / 3)
        assert row["num_tasks"] == 3


def test_the_best_of_a_row_is_marked_in_the_direction_of_its_metric(monkeypatch: pytest.MonkeyPatch) -> None:
    error = dataclasses.replace(metrics.get("accuracy"), name="error_rate", mode="min")
    monkeypatch.setitem(metrics.METRICS, "error_rate", error)
    rows = large_rows(TASKS[:2], ("adapter", "linear_probe"))
    plain = large_results(rows).score_table().to_pylist()
    assert {row["method"] for row in plain if row["is_best"]} == {"adapter"}
    turned = [{**row, "metric": "error_rate"} for row in rows]
    assert {r["method"] for r in large_results(turned).score_table().to_pylist() if r["is_best"]} == {"linear_probe"}
    mixed = [{**row, "metric": "error_rate"} if row["task"] == TASKS[0] else row for row in rows]
    table = large_results(mixed).score_table()
    assert None not in table["task"].to_pylist(), "scores and errors have no common average"
    assert any("some tasks are better with a higher score" in note for note in missing_of(table))


def test_a_method_without_a_trial_on_a_task_has_an_empty_cell_that_is_named() -> None:
    rows = [
        row for row in large_rows(TASKS[:3], ("adapter", "lora")) if (row["task"], row["method"]) != (TASKS[0], "lora")
    ]
    table = large_results(rows).score_table()
    empty = [row for row in table.to_pylist() if row["score"] is None]
    assert [(row["task"], row["method"]) for row in empty] == [(TASKS[0], "lora")]
    assert "lora: no completed trial on glue/cola" in missing_of(table)
    assert {row["num_tasks"] for row in table.to_pylist() if row["task"] is None} == {2}


def test_an_unknown_split_is_refused() -> None:
    with pytest.raises(FaultsError, match="tset"):
        large_results([]).score_table(split="tset")
