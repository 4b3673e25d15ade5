"""How validation scores rise while configurations train."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from orchestrator.analysis.configurations import Configuration
from orchestrator.analysis.missing import with_missing
from orchestrator.analysis.reported import gaps, reported
from orchestrator.analysis.statistics import intervals
from orchestrator.record import TrialStatus

_CURVES = pa.schema(
    {
        **dict.fromkeys(("task", "backbone", "method", "config_id", "metric"), pa.string()),
        **dict.fromkeys(("epoch", "step"), pa.int64()),
        **dict.fromkeys(("validation_mean", "validation_sem", "train_loss"), pa.float64()),
        "num_seeds": pa.int64(),
        "num_folds": pa.int64(),
    }
)


def learning_curves(trials: pa.Table, epochs: pa.Table, configurations: Sequence[Configuration]) -> pa.Table:
    """A row per task, method and epoch of the chosen configuration; `Results.learning_curves` has the columns."""
    chosen = reported(configurations, "validation")
    completed = trials.filter(pc.equal(trials["status"], TrialStatus.COMPLETED.value))["trial_id"]
    own = epochs.filter(
        pc.and_(
            pc.is_in(epochs["config_id"], pa.array([r.configuration.config_id for r in chosen.values()], pa.string())),
            pc.is_in(epochs["trial_id"], completed.combine_chunks()),
        )
    )
    measured: dict[tuple[str, int], list[dict[str, Any]]] = {}
    names = ["config_id", "epoch", "step", "train/loss", "validation_score"]
    for row in own.select(names).to_pylist():
        if row["validation_score"] is not None and math.isfinite(row["validation_score"]):
            measured.setdefault((row["config_id"], row["epoch"]), []).append(row)
    by_config: dict[str, list[int]] = {}
    for config_id, epoch in sorted(measured):
        by_config.setdefault(config_id, []).append(epoch)
    rows = []
    for (task, method), speaker in chosen.items():
        config_id = speaker.configuration.config_id
        for epoch in by_config.get(config_id, []):
            group = measured[config_id, epoch]
            scores = np.array([row["validation_score"] for row in group])
            losses = [row["train/loss"] for row in group if row["train/loss"] is not None]
            rows.append(
                {
                    "task": task,
                    "backbone": method.backbone,
                    "method": method.name,
                    "config_id": config_id,
                    "metric": speaker.configuration.metric,
                    "epoch": epoch,
                    "step": min(row["step"] for row in group),
                    "validation_mean": intervals.mean(scores),
                    "validation_sem": intervals.standard_error(scores),
                    "train_loss": intervals.mean(losses) if np.isfinite(losses).all() and losses else None,
                    "num_seeds": len(group),
                    "num_folds": speaker.score.num_folds,
                }
            )
    return with_missing(pa.Table.from_pylist(rows, schema=_CURVES), gaps(configurations, list(chosen)))
