"""From trials to configurations: replicates become a mean and a standard error, and one configuration is chosen.

Choosing looks at validation scores only. Test scores are summarised beside them and never consulted.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from orchestrator.analysis.statistics import intervals
from orchestrator.record import TrialStatus
from trainables import metrics
from trainables.config import HYPERPARAMETERS

# Columns of the trials table that are the same for all seeds of a configuration; the sizes are null where unmeasured.
IDENTITY = ("task", "backbone", "method")
SIZES = ("trained_params", "trained_params_without_head", "total_params")

# The columns every trials table has. What is not among them is a hyperparameter, or a component of the metric on a
# split ("validation/...", "test/...").
RECORDED: dict[str, pa.DataType] = {
    **dict.fromkeys(("sweep", "trial_id", "config_id", *IDENTITY), pa.string()),
    "seed": pa.int64(),
    "status": pa.string(),
    **dict.fromkeys(SIZES, pa.int64()),
    "metric": pa.string(),
    **dict.fromkeys(("validation_score", "test_score"), pa.float64()),
    "best_epoch": pa.int64(),
    **dict.fromkeys(("duration_s", "examples_per_second", "pack_size"), pa.float64()),
    "peak_memory_bytes": pa.int64(),
    **dict.fromkeys(("started_at", "engine", "error"), pa.string()),
    "provenance": pa.struct([("commit", pa.string())]),
    "schema_version": pa.int64(),
}


@dataclass(frozen=True, kw_only=True)
class SeedSummary:
    """What the replicates of one configuration say about one score, in the metric's unit."""

    mean: float
    sem: float | None  # None where there is one replicate
    num_seeds: int
    scores: tuple[float, ...]


@dataclass(frozen=True, kw_only=True)
class Configuration:
    """One configuration with all its recorded trials; `validation` and `test` rest on the completed ones."""

    config_id: str
    task: str
    backbone: str
    method: str
    hyperparameters: Mapping[str, Any]
    metric: str | None
    validation: SeedSummary | None
    test: SeedSummary | None
    num_trials: int
    num_failed: int
    trained_params: int | None
    trained_params_without_head: int | None
    total_params: int | None

    def value(self, column: str) -> Any:
        """What this configuration has in a column of the trials table; null where the column does not apply."""
        return self.hyperparameters[column] if column in self.hyperparameters else getattr(self, column)


def hyperparameter_columns(trials: pa.Table) -> list[str]:
    """The columns of a trials table that hold hyperparameters, in their order."""
    return [name for name in trials.column_names if name not in RECORDED and "/" not in name]


def varying_hyperparameters(trials: pa.Table) -> list[str]:
    """Those that have more than one value, in their order; of a method's options, more than one within a method."""
    methods = trials["method"].to_pylist()

    def varies(name: str) -> bool:
        of_all = name in HYPERPARAMETERS  # defaults of options may differ between methods
        pairs = zip(methods, trials[name].to_pylist(), strict=True)
        found = {(None if of_all else method, value) for method, value in pairs if value is not None}
        return len(found) > len({method for method, _ in found})

    return [name for name in hyperparameter_columns(trials) if varies(name)]


def group_by_configuration(trials: pa.Table) -> list[Configuration]:
    """A Configuration per config_id, sorted by it, of a table with the columns of `RECORDED`."""
    hyperparameters = hyperparameter_columns(trials)
    constant = [*IDENTITY, *SIZES, "metric", *hyperparameters]
    columns = {name: trials[name].to_pylist() for name in constant}
    status = trials["status"].to_numpy()
    is_failed, is_completed = status == TrialStatus.FAILED.value, status == TrialStatus.COMPLETED.value
    scores = {
        split: np.where(is_completed, trials[f"{split}_score"].cast(pa.float64()).to_numpy(), np.nan)
        for split in ("validation", "test")
    }
    rows: dict[str, list[int]] = {}
    for row, config_id in enumerate(trials["config_id"].to_pylist()):
        rows.setdefault(config_id, []).append(row)

    def summarise(config_id: str, own: list[int]) -> Configuration:
        known: dict[str, Any] = {}
        for name in constant:
            known[name] = next((value for row in own if (value := columns[name][row]) is not None), None)
        return Configuration(
            config_id=config_id,
            hyperparameters={name: known.pop(name) for name in hyperparameters},
            validation=_summary(scores["validation"][own]),
            test=_summary(scores["test"][own]),
            num_trials=len(own),
            num_failed=int(is_failed[own].sum()),
            **known,
        )

    return [summarise(config_id, rows[config_id]) for config_id in sorted(rows)]


def higher_is_better(metric: str | None) -> bool:
    """The direction of a metric; of an unrecorded one, that of accuracy. Raises `FaultsError` on an unknown metric."""
    return metric is None or metrics.get(metric).mode == "max"


def contenders(configurations: Iterable[Configuration]) -> list[Configuration]:
    """The configurations with as many completed seeds as the best-covered one, best first.

    The mean of few seeds scatters more than the mean of many, so while a sweep is unfinished (or after failures) a
    single lucky seed would win; a configuration competes once it has as many scores as any other. Pruned seeds have no
    score: one that was pruned on some gives way to any that was not. Ties go to fewer trained parameters, then to the
    smaller config_id. Empty where nothing is completed.
    """
    scored = [(c, c.validation) for c in configurations if c.validation is not None]
    coverage = max((estimate.num_seeds for _, estimate in scored), default=0)
    covered = [(c, estimate) for c, estimate in scored if estimate.num_seeds == coverage]

    def rank(pair: tuple[Configuration, SeedSummary]) -> tuple[float, float, str]:
        configuration, estimate = pair
        loss = -estimate.mean if higher_is_better(configuration.metric) else estimate.mean
        return loss, size_rank(configuration), configuration.config_id

    return [configuration for configuration, _ in sorted(covered, key=rank)]


def size_rank(configuration: Configuration) -> float:
    """Orders by trained parameters, an unknown number last."""
    return math.inf if configuration.trained_params is None else configuration.trained_params


def group_by(
    configurations: Iterable[Configuration], columns: Sequence[str]
) -> dict[tuple[Any, ...], list[Configuration]]:
    """Configurations by their values in some columns, the groups sorted by these with null last."""
    groups: dict[tuple[Any, ...], list[Configuration]] = {}
    for configuration in configurations:
        groups.setdefault(tuple(configuration.value(column) for column in columns), []).append(configuration)
    order = sorted(groups, key=lambda key: tuple((value is None, "" if value is None else value) for value in key))
    return {key: groups[key] for key in order}


def _summary(scores: np.ndarray) -> SeedSummary | None:
    """Of `(num_trials,)` scores, NaN where a trial has none."""
    known = scores[np.isfinite(scores)]
    if not known.size:
        return None
    return SeedSummary(
        mean=intervals.mean(known),
        sem=intervals.standard_error(known),
        num_seeds=known.size,
        scores=tuple(known.tolist()),
    )
