from __future__ import annotations

import dataclasses
import itertools

import numpy as np
import pytest
import scipy.stats

from tests.orchestrator.analysis.large_sweep import TASKS, large_results, large_rows
from trainables import metrics
from trainables.faults import FaultsError

METHODS = ("adapter", "full_finetuning", "layernorm")


def test_differences_and_intervals_are_those_of_scipy() -> None:
    rows = large_rows(TASKS[:6], METHODS)
    results = large_results(rows)
    chosen = {(row["task"], row["method"]): row["config_id"] for row in results.best().to_pylist()}
    runs = {key: [row["test_score"] for row in rows if row["config_id"] == config] for key, config in chosen.items()}
    table = results.paired_differences().to_pylist()
    assert {row["reference"] for row in table} == {"full_finetuning"}
    for row in (row for row in table if row["task"] is not None):
        ours, theirs = runs[row["task"], row["method"]], runs[row["task"], "full_finetuning"]
        interval = scipy.stats.ttest_ind(ours, theirs, equal_var=False).confidence_interval(0.95)
        assert row["difference"] == pytest.approx(np.mean(ours) - np.mean(theirs))
        assert (row["low"], row["high"]) == pytest.approx((interval.low, interval.high))
    for row in (row for row in table if row["task"] is None):
        own = np.array([r["difference"] for r in table if r["method"] == row["method"] and r["task"] is not None])
        interval = scipy.stats.ttest_1samp(own, 0).confidence_interval(0.95)
        assert (row["low"], row["high"]) == pytest.approx((interval.low, interval.high))
        flipped = [abs((own * signs).sum()) >= abs(own.sum()) - 1e-12 for signs in itertools.product((1, -1), repeat=6)]
        assert row["p_value"] == pytest.approx(np.mean(flipped))
        assert (row["smallest_p"], row["num_tasks"]) == (2**-5, 6)


def test_holm_is_over_the_methods_compared() -> None:
    table = large_results(large_rows(TASKS[:6], METHODS)).paired_differences().to_pylist()
    overall = sorted((row for row in table if row["task"] is None), key=lambda row: row["p_value"])
    assert overall[0]["p_holm"] == pytest.approx(2 * overall[0]["p_value"])
    assert overall[1]["p_holm"] == pytest.approx(max(overall[0]["p_holm"], overall[1]["p_value"]))


def test_positive_is_better_also_of_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    error = dataclasses.replace(metrics.get("accuracy"), name="error_rate", mode="min")
    monkeypatch.setitem(metrics.METRICS, "error_rate", error)
    rows = [
        {**row, "metric": "error_rate", "validation_score": level, "test_score": level + 0.001 * row["seed"]}
        for row in large_rows(TASKS[:1], ("layernorm", "full_finetuning"))
        for level in [0.2 if row["method"] == "layernorm" else 0.1]
    ]
    (row, _) = large_results(rows).paired_differences().to_pylist()
    assert row["difference"] == pytest.approx(-0.1)
    assert row["low"] < -0.1 < row["high"] < 0


def test_without_full_finetuning_the_method_with_most_tasks_is_the_reference() -> None:
    rows = [
        row
        for row in large_rows(TASKS[:3], ("adapter", "lora"))
        if (row["method"], row["task"]) != ("adapter", TASKS[0])
    ]
    assert set(large_results(rows).paired_differences()["reference"].to_pylist()) == {"lora"}
    asked = large_results(rows).paired_differences("adapter")
    assert set(asked["method"].to_pylist()) == {"lora"}
    with pytest.raises(FaultsError, match=r"(?s)lorra.*vaildation"):
        large_results(rows).paired_differences("lorra", split="vaildation")
