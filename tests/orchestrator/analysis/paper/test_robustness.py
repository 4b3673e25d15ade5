from __future__ import annotations

import numpy as np
import pytest

from orchestrator.analysis.missing import missing_of
from tests.orchestrator.analysis.large_sweep import RATES, TASKS, large_results, large_rows
from trainables.faults import FaultsError


def test_at_each_rate_stands_the_best_of_all_other_settings() -> None:
    rows = large_rows(TASKS[:2], ("adapter", "layernorm"))
    table = large_results(rows).robustness().to_pylist()
    assert len(table) == 2 * 2 * len(RATES)
    for row in table:
        means: dict[str, list[float]] = {}
        for each in rows:
            if (each["task"], each["method"], each["learning_rate"]) == (row["task"], row["method"], row["value"]):
                means.setdefault(each["config_id"], []).append(each["validation_score"])
        best = max(means.values(), key=np.mean)
        assert row["validation_mean"] == pytest.approx(np.mean(best))
        assert row["validation_sem"] == pytest.approx(np.std(best, ddof=1) / np.sqrt(3))
        assert row["num_configs_tried"] == len(means)
    assert min(row["loss_to_best"] for row in table) == 0


def test_a_method_with_one_value_is_named_and_an_unknown_hyperparameter_refused() -> None:
    rows = [row for row in large_rows(TASKS[:1], ("adapter", "lora")) if row["method"] == "adapter" or row["rank"] == 4]
    results = large_results(rows)
    assert missing_of(results.robustness("rank")) == ["lora: only rank 4 was tried, so no curve"]
    with pytest.raises(FaultsError, match="learning_rat"):
        results.robustness("learning_rat")
