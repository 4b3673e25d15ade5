"""TrialRecord, the waist of the house: what happened to one planned trial, whatever happened.

Scheduling makes records, the store and the tracker keep them, the analysis reads them; none of the three knows the
others.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from orchestrator.planning.plan import PlannedTrial
from trainables.config import Scalar
from trainables.outcome import EpochReport, TrialOutcome

SCHEMA_VERSION = 1


class TrialStatus(StrEnum):
    """The life of a trial."""

    PLANNED = "planned"  # no record yet
    RUNNING = "running"  # an engine is training it; no record yet
    COMPLETED = "completed"  # trained to its last epoch
    PRUNED = "pruned"  # stopped early by the trial scheduler
    FAILED = "failed"  # ended by an error, which the record holds
    CANCELLED = "cancelled"  # stopped by the user before its last epoch

    def is_finished(self) -> bool:
        """Whether training it again would only repeat what is known. Failed and cancelled trials may be retried."""
        return self in (TrialStatus.COMPLETED, TrialStatus.PRUNED)


@dataclass(frozen=True, kw_only=True)
class TrialRecord:
    """One planned trial's end. Every planned trial gets exactly one. Unmeasured is None."""

    sweep: str
    trial_id: str
    config_id: str
    task: str
    backbone: str
    method: str
    seed: int
    fold: int | None = None  # which one it was validated on, where the task is cut into folds
    status: TrialStatus
    # Method options included. A key that the method does not know is absent, a hyperparameter it does not use is None.
    hyperparameters: Mapping[str, Scalar]
    trained_params: int | None = None  # counts the head, as the paper does
    trained_params_without_head: int | None = None
    total_params: int | None = None
    metric: str | None = None
    validation_score: float | None = None
    test_score: float | None = None
    best_epoch: int | None = None
    duration_s: float | None = None
    examples_per_second: float | None = None  # of this trial, in training
    pack_size: float | None = None  # trials that trained together, itself included, as a mean over its steps
    peak_memory_bytes: int | None = None
    started_at: str | None = None  # UTC, ISO 8601
    engine: str | None = None  # host and device that trained it
    error: str | None = None
    provenance: Mapping[str, str] = field(default_factory=dict)
    validation: Mapping[str, float] = field(default_factory=dict)  # components of the metric, and "loss"
    test: Mapping[str, float] = field(default_factory=dict)
    epochs: tuple[EpochReport, ...] = ()
    schema_version: int = SCHEMA_VERSION


def make_record(sweep: str, trial: PlannedTrial, outcome: TrialOutcome, *, engine: str | None = None) -> TrialRecord:
    """Join what was planned with what came of it."""
    return TrialRecord(
        sweep=sweep,
        trial_id=trial.trial_id,
        config_id=trial.config_id,
        task=trial.task,
        backbone=trial.config.backbone,
        method=trial.config.method,
        seed=trial.config.seed,
        fold=trial.config.fold,
        status=TrialStatus(outcome.status.value),
        hyperparameters=trial.hyperparameters,
        trained_params=outcome.trained_params,
        trained_params_without_head=outcome.trained_params_without_head,
        total_params=outcome.total_params,
        metric=outcome.metric,
        validation_score=outcome.validation_score,
        test_score=outcome.test_score,
        best_epoch=outcome.best_epoch,
        duration_s=outcome.duration_s,
        examples_per_second=outcome.examples_per_second,
        pack_size=outcome.pack_size,
        peak_memory_bytes=outcome.peak_memory_bytes,
        started_at=outcome.started_at,
        engine=engine,
        error=outcome.error,
        provenance={**trial.provenance, **outcome.provenance},
        validation=outcome.validation,
        test=outcome.test,
        epochs=outcome.epochs,
    )


def describe_trial(
    method: str,
    hyperparameters: Mapping[str, Scalar],
    seed: int,
    varied: Iterable[str] = (),
    *,
    fold: int | None = None,
) -> str:
    """A trial in a few words, such as "adapter adapter_size=64 learning_rate=0.001 seed 0".

    `varied` names the options and hyperparameters to mention: those that tell the sweep's trials of this method apart.
    One that this trial does not have is left out.
    """
    values = [f"{name}={written(hyperparameters[name])}" for name in varied if name in hyperparameters]
    return " ".join([method, *values, replicate(seed, fold)])


def replicate(seed: int, fold: int | None) -> str:
    """Which of its configuration's replicates a trial is: "seed 0", or "seed 0 fold 3"."""
    return f"seed {seed}" if fold is None else f"seed {seed} fold {fold}"


def written(value: Scalar) -> str:
    """A value as a sweep file has it, a fraction with at most six digits."""
    if isinstance(value, str):
        return value
    return f"{value:g}" if isinstance(value, float) else json.dumps(value)
