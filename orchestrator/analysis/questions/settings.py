"""Every setting that completed, with what it scored and what it took: the rows behind the report's explorable chart."""

from __future__ import annotations

import math

import pyarrow as pa
import pyarrow.compute as pc

from orchestrator.analysis.configurations import engine_seconds, hyperparameter_columns
from orchestrator.analysis.results import Results
from orchestrator.record import TrialStatus


def settings(results: Results) -> pa.Table:
    """A row per task, backbone, method and hyperparameters with a completed trial, in the order of these.

    Columns as in `Results.best`, and engine_seconds_per_trial: the mean over its completed trials of what each took of
    its engine, null where no duration was measured.
    """
    trials = results.trials()
    best = results.best(per=["task", "backbone", "method", *hyperparameter_columns(trials)])
    spent = seconds_per_configuration(trials)
    seconds = [spent.get(config_id) for config_id in best["config_id"].to_pylist()]
    return best.append_column("engine_seconds_per_trial", pa.array(seconds, pa.float64()))


def seconds_per_configuration(trials: pa.Table) -> dict[str, float]:
    """The mean engine seconds of the completed trials of each configuration, where any was measured."""
    completed = trials.filter(pc.equal(trials["status"], TrialStatus.COMPLETED.value))
    spent: dict[str, list[float]] = {}
    for config_id, seconds in zip(completed["config_id"].to_pylist(), engine_seconds(completed).tolist(), strict=True):
        if not math.isnan(seconds):
            spent.setdefault(config_id, []).append(seconds)
    return {config_id: math.fsum(values) / len(values) for config_id, values in spent.items()}
