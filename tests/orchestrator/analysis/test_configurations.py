from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from orchestrator.analysis.configurations import (
    RECORDED,
    Configuration,
    SeedSummary,
    contenders,
    group_by,
    group_by_configuration,
    higher_is_better,
    varying_hyperparameters,
)
from trainables import metrics
from trainables.faults import FaultsError


def trial(name: str, seed: int = 0, **values: Any) -> dict[str, Any]:
    """A completed trial of a configuration."""
    fixed = {"config_id": name, "trial_id": f"{name}-{seed}", "seed": seed, "task": "trec", "method": "adapter"}
    return {**fixed, "status": "completed", "metric": "accuracy", **values}


def grouped(*rows: dict[str, Any], **options: pa.DataType) -> list[Configuration]:
    """The configurations of trials, whose hyperparameters are `options`."""
    return group_by_configuration(pa.Table.from_pylist(list(rows), schema=pa.schema({**RECORDED, **options})))


def configuration(name: str, *scores: float, size: int | None = 100, metric: str = "accuracy") -> Configuration:
    rows = [trial(name, seed, validation_score=s, trained_params=size, metric=metric) for seed, s in enumerate(scores)]
    (found,) = grouped(*(rows or [trial(name, status="failed")]))
    return found


def names(*configurations: Configuration) -> list[str]:
    return [c.config_id for c in contenders(configurations)]


def test_contenders_come_best_first() -> None:
    assert names(configuration("low", 0.7), configuration("high", 0.9), configuration("middle", 0.8)) == [
        "high",
        "middle",
        "low",
    ]


def test_a_single_lucky_seed_does_not_compete_with_covered_configurations() -> None:
    assert names(configuration("lucky", 0.99), configuration("covered", 0.8, 0.8, 0.8)) == ["covered"]


def test_ties_go_to_fewer_trained_parameters_and_then_to_the_smaller_config_id() -> None:
    large, small = configuration("a", 0.9, size=200), configuration("z", 0.9, size=50)
    twin, unknown = configuration("b", 0.9, size=50), configuration("0", 0.9, size=None)
    assert names(large, small, twin, unknown) == ["b", "z", "a", "0"]


def test_without_a_completed_trial_there_is_no_contender() -> None:
    assert names(configuration("failed")) == []
    assert names() == []


def test_where_less_is_better_the_lowest_score_wins(monkeypatch: pytest.MonkeyPatch) -> None:
    error = dataclasses.replace(metrics.get("accuracy"), name="error_rate", mode="min")
    monkeypatch.setitem(metrics.METRICS, "error_rate", error)
    assert not higher_is_better("error_rate")
    assert names(configuration("bad", 0.4, metric="error_rate"), configuration("good", 0.1, metric="error_rate")) == [
        "good",
        "bad",
    ]


def test_an_unknown_metric_is_refused_with_the_known_ones() -> None:
    with pytest.raises(FaultsError, match="unknown metric 'acuracy'; did you mean 'accuracy'"):
        higher_is_better("acuracy")


def test_a_configuration_says_what_its_trials_say() -> None:
    rows = [
        trial("b", 2, validation_score=0.9, test_score=0.8, duration_s=30.0, peak_memory_bytes=7, adapter_size=8),
        trial("a", 0, status="failed", duration_s=5.0),
        trial("b", 0, validation_score=0.7, duration_s=10.0, pack_size=2.0, peak_memory_bytes=9, trained_params=50),
        trial("b", 1, status="failed", validation_score=0.1, duration_s=1.0, peak_memory_bytes=99),
    ]
    failed, found = grouped(*rows, adapter_size=pa.int64())
    assert (found.config_id, found.task, found.method, found.trained_params) == ("b", "trec", "adapter", 50)
    assert found.hyperparameters == {"adapter_size": 8}
    assert found.value("adapter_size") == 8
    assert found.value("method") == "adapter"
    assert (found.num_trials, found.num_failed) == (3, 1)
    assert found.validation == SeedSummary(scores=(0.7, 0.9), mean=0.8, replicates=((0, -1), (2, -1)))
    assert found.validation.num_seeds == 2
    assert found.validation.sem == pytest.approx(np.std([0.7, 0.9], ddof=1) / math.sqrt(2))
    assert found.test == SeedSummary(scores=(0.8,), mean=0.8, replicates=((2, -1),))
    assert found.test.sem is None
    assert (found.engine_seconds, found.seconds_per_trial, found.peak_memory_bytes) == (36.0, 17.5, 9)
    assert (failed.validation, failed.test, failed.seconds_per_trial, failed.peak_memory_bytes) == (None,) * 4
    assert (failed.engine_seconds, failed.num_failed, failed.hyperparameters) == (5.0, 1, {"adapter_size": None})


def test_no_trial_is_no_configuration() -> None:
    assert grouped() == []


@pytest.mark.parametrize("seed", range(5))
def test_configurations_of_many_trials_are_those_of_each_ones_own_trials(seed: int) -> None:
    rng = np.random.default_rng(seed)
    statuses = ["completed", "failed", "pruned", "cancelled"]

    def number() -> float | None:
        return float(rng.normal()) if rng.random() < 0.8 else None

    rows = [
        trial(
            f"c{rng.integers(12):02d}",
            int(row),
            status=str(rng.choice(statuses)),
            validation_score=number(),
            test_score=number(),
            duration_s=number(),
            peak_memory_bytes=None if rng.random() < 0.3 else int(rng.integers(1000)),
        )
        for row in rng.permutation(60)
    ]
    found = grouped(*rows)
    assert [c.config_id for c in found] == sorted({row["config_id"] for row in rows})
    for c in found:
        own = sorted((row for row in rows if row["config_id"] == c.config_id), key=lambda row: int(row["seed"]))
        completed = [row for row in own if row["status"] == "completed"]
        for split in ("validation", "test"):
            scores = tuple(row[f"{split}_score"] for row in completed if row[f"{split}_score"] is not None)
            summary = getattr(c, split)
            assert (summary.scores if summary else ()) == scores
            assert summary is None or summary.mean == math.fsum(scores) / len(scores)
        seconds = [row["duration_s"] for row in own if row["duration_s"] is not None]
        assert c.engine_seconds == (math.fsum(seconds) if seconds else None)
        memory = [row["peak_memory_bytes"] for row in completed if row["peak_memory_bytes"] is not None]
        assert c.peak_memory_bytes == max(memory, default=None)
        assert c.num_trials == len(own)
        assert c.num_failed == sum(row["status"] == "failed" for row in own)


def test_groups_are_sorted_by_their_values_with_null_last() -> None:
    rows = [trial(name, size=size) for name, size in (("a", None), ("b", 64), ("c", 8), ("d", 64))]
    groups = group_by(grouped(*rows, size=pa.int64()), ["method", "size"])
    assert {key: [c.config_id for c in group] for key, group in groups.items()} == {
        ("adapter", 8): ["c"],
        ("adapter", 64): ["b", "d"],
        ("adapter", None): ["a"],
    }
    assert list(groups) == [("adapter", 8), ("adapter", 64), ("adapter", None)]


def test_a_hyperparameter_varies_where_it_has_several_values_and_an_option_where_it_has_within_a_method() -> None:
    kinds = {"size": pa.int64(), "layers": pa.int64(), "learning_rate": pa.float64(), "unused": pa.null()}
    rows = [
        trial("a", method="adapter", size=8, layers=1, learning_rate=0.1),
        trial("b", method="adapter", size=64, layers=None, learning_rate=0.1),
        trial("c", method="top_layers", size=None, layers=2, learning_rate=0.2),
    ]
    table = pa.Table.from_pylist(rows, schema=pa.schema({**RECORDED, **kinds}))
    assert varying_hyperparameters(table) == ["size", "learning_rate"]
    assert varying_hyperparameters(table.slice(0, 0)) == []
