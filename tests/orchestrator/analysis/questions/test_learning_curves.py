from __future__ import annotations

import math

import numpy as np
import pytest

from tests.orchestrator.analysis.large_sweep import EPOCHS, TASKS, large_results, large_rows


def test_a_curve_is_the_mean_of_the_chosen_configurations_trials() -> None:
    rows = large_rows(TASKS[:2], ("adapter", "layernorm"))
    results = large_results(rows)
    curves = results.learning_curves().to_pylist()
    assert len(curves) == 2 * 2 * EPOCHS
    best = {(row["task"], row["method"]): row["config_id"] for row in results.best().to_pylist()}
    for row in curves:
        assert row["config_id"] == best[row["task"], row["method"]]
        own = [each["validation_score"] for each in rows if each["config_id"] == row["config_id"]]
        scores = np.array(own) * (1 - 0.3 * math.exp(-row["epoch"]) + 0.3 * math.exp(-EPOCHS))
        assert row["validation_mean"] == pytest.approx(scores.mean())
        assert row["validation_sem"] == pytest.approx(scores.std(ddof=1) / math.sqrt(3))
        assert (row["num_seeds"], row["step"]) == (3, 100 * row["epoch"])
        assert row["train_loss"] == pytest.approx(1 / row["epoch"])


def test_trials_that_did_not_complete_are_not_in_a_curve() -> None:
    rows = [{**row, "status": "pruned"} if row["seed"] == 2 else row for row in large_rows(TASKS[:1], ("layernorm",))]
    assert set(large_results(rows).learning_curves()["num_seeds"].to_pylist()) == {2}
