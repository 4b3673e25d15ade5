from __future__ import annotations

import numpy as np
import pytest

from tests.orchestrator.analysis.large_sweep import TASKS, large_results, large_rows


def test_a_share_is_counted_from_the_runs_of_the_chosen_configurations() -> None:
    rows = large_rows(TASKS[:3], ("adapter", "layernorm"))
    results = large_results(rows)
    chosen = {(row["task"], row["method"]): row["config_id"] for row in results.best().to_pylist()}
    runs = {
        key: np.array([row["test_score"] for row in rows if row["config_id"] == config])
        for key, config in chosen.items()
    }
    best = {task: max(runs[task, method].mean() for method in ("adapter", "layernorm")) for task in TASKS[:3]}
    for row in results.profile().to_pylist():
        above = [(runs[task, row["method"]] - best[task] > row["threshold"]).mean() for task in TASKS[:3]]
        assert row["share"] == pytest.approx(np.mean(above))
        assert row["share_low"] - 1e-9 <= row["share"] <= row["share_high"] + 1e-9
        assert (row["num_tasks"], row["num_seeds"]) == (3, 3)


def test_it_starts_at_one_ends_at_zero_and_is_the_same_each_time() -> None:
    results = large_results(large_rows(TASKS[:3], ("adapter", "layernorm")))
    table = results.profile()
    shares = table["share"].to_numpy().reshape(2, -1)
    assert (shares[:, 0] == 1).all()
    assert (shares[:, -1] == 0).all()
    assert (np.diff(shares) <= 0).all()
    assert results.profile().equals(table)


def test_one_seed_has_no_band() -> None:
    table = large_results(large_rows(TASKS[:2], ("adapter", "lora"), seeds=(0,))).profile()
    assert table["share_low"].null_count == len(table)
