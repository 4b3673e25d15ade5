"""Everything that was tried: a row per configuration, as slice plots and parallel coordinates show it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from orchestrator.analysis.configurations import SIZES, Configuration, gain, higher_is_better
from orchestrator.analysis.statistics import intervals
from orchestrator.record import TrialStatus


def tried(trials: pa.Table, configurations: Sequence[Configuration], names: Sequence[str]) -> pa.Table:
    """A row per configuration with a completed trial, `names` being the hyperparameters to show.

    `Results.tried` has the columns.
    """
    seconds: dict[str, list[float]] = {}
    completed = pc.equal(trials["status"], TrialStatus.COMPLETED.value)  # one that failed took no time to train
    own = trials.filter(pc.and_(completed, pc.is_finite(trials["duration_s"])))
    for config_id, duration in zip(own["config_id"].to_pylist(), own["duration_s"].to_pylist(), strict=True):
        seconds.setdefault(config_id, []).append(duration)
    scored = [c for c in configurations if c.validation is not None]
    best: dict[str, float] = {}
    for configuration in scored:
        score, higher = _mean(configuration), higher_is_better(configuration.metric)
        best[configuration.task] = (max if higher else min)(best.get(configuration.task, score), score)
    rows: list[dict[str, Any]] = []
    for c in scored:
        rows.append(
            {
                **{name: c.value(name) for name in ("task", "backbone", "method", "config_id", "metric", *SIZES)},
                "validation_mean": _mean(c),
                "validation_sem": c.validation and c.validation.sem,
                "test_mean": c.test and c.test.mean,
                "test_sem": c.test and c.test.sem,
                "loss_to_best": gain(best[c.task], _mean(c), c.metric),
                "num_seeds": c.validation and c.validation.num_seeds,
                "num_folds": c.validation and c.validation.num_folds,
                "duration_s": intervals.mean(seconds[c.config_id]) if c.config_id in seconds else None,
                **{name: c.hyperparameters.get(name) for name in names},
            }
        )
    schema = pa.schema(
        {
            **dict.fromkeys(("task", "backbone", "method", "config_id", "metric"), pa.string()),
            **dict.fromkeys(SIZES, pa.int64()),
            **dict.fromkeys(("validation_mean", "validation_sem", "test_mean", "test_sem"), pa.float64()),
            "loss_to_best": pa.float64(),
            "num_seeds": pa.int64(),
            "num_folds": pa.int64(),
            "duration_s": pa.float64(),
            **{name: trials.schema.field(name).type for name in names},
        }
    )
    return pa.Table.from_pylist(rows, schema=schema)


def searched_of(tried: pa.Table) -> list[str]:
    """The hyperparameters that a table of what was tried shows: its columns after `duration_s`."""
    return list(tried.column_names[tried.column_names.index("duration_s") + 1 :])


def _mean(configuration: Configuration) -> float:
    assert configuration.validation is not None  # those without a completed trial have been left out
    return configuration.validation.mean
