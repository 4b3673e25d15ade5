"""Configurations, planned trials, reports, outcomes and records for tests: complete but for what a test asks for."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa

from orchestrator.planning.plan import SweepPlan
from orchestrator.planning.task_method import PlannedTrial
from orchestrator.record import TrialRecord, TrialStatus
from orchestrator.spec.spec import MethodSpec, SweepSpec
from trainables.config import Scalar, TrialConfig
from trainables.outcome import EpochReport, OutcomeStatus, TrialOutcome

STARTED_AT = "2026-01-02T03:04:05+00:00"


def trial_config(
    method: str = "adapter",
    *,
    task: str = "any",
    backbone: str = "any",
    method_options: Mapping[str, Scalar] | None = None,
    **values: Any,
) -> TrialConfig:
    """A configuration with the defaults of every hyperparameter. Without options an adapter has the size 4."""
    if method_options is None:
        method_options = {"adapter_size": 4} if method == "adapter" else {}
    return TrialConfig(task=task, backbone=backbone, method=method, method_options=method_options, **values)


def brief_config(method: str = "adapter", **values: Any) -> TrialConfig:
    """A configuration that learns a task of a hundred rows in its two epochs."""
    return trial_config(method, **({"learning_rate": 1e-2, "batch_size": 16, "num_epochs": 2} | values))


def planned_trial(trial_id: str = "t0", config: TrialConfig | None = None, **changes: Any) -> PlannedTrial:
    """A trial of the configuration `c-<trial_id>`, on the task that its reference names."""
    config = config or trial_config(task="toy/sentiment", backbone="minilm")
    fixed = {"config_id": f"c-{trial_id}", "task": config.task}
    return PlannedTrial(trial_id=trial_id, config=config, **(fixed | changes))


def sweep_plan(*trials: PlannedTrial, name: str = "small") -> SweepPlan:
    """The plan of a sweep of adapters that has these trials."""
    spec = SweepSpec(name=name, tasks=("toy/sentiment",), methods=(MethodSpec(method="adapter"),))
    return SweepPlan(spec=spec, trials=trials)


def plan_rows(*trial_ids: str, sweep: str = "quickstart", **columns: Any) -> pa.Table:
    """A plan as the store keeps it, with further columns as given."""
    numbers = range(len(trial_ids))
    return pa.table(
        {
            "sweep": pa.array([sweep for _ in numbers], pa.string()),
            "trial_id": pa.array(trial_ids, pa.string()),
            "config_id": pa.array([f"c-{trial_id}" for trial_id in trial_ids], pa.string()),
            **{name: pa.array([text for _ in numbers]) for name, text in (("task", "t"), ("method", "adapter"))},
            **columns,
            "config": pa.array(["{}" for _ in numbers], pa.string()),
        }
    )


def epoch_report(epoch: int = 1, **changes: Any) -> EpochReport:
    """An epoch of ten steps, better than the one before."""
    report = EpochReport(
        epoch=epoch,
        step=10 * epoch,
        train_loss=1 / epoch,
        validation_score=0.5 + epoch / 10,
        validation={"accuracy": 0.5 + epoch / 10, "loss": 1.5 / epoch},
        duration_s=2.5,
    )
    return dataclasses.replace(report, **changes)


def outcome(status: str = OutcomeStatus.COMPLETED, **changes: Any) -> TrialOutcome:
    """How a training ended; what is not given is unmeasured."""
    fixed = {"started_at": STARTED_AT, "duration_s": 1.0}
    return TrialOutcome(status=OutcomeStatus(status), **(fixed | changes))


def trial_record(
    trial: PlannedTrial | str = "t0", status: str = TrialStatus.COMPLETED, *, sweep: str = "small", **changes: Any
) -> TrialRecord:
    """The end of a trial, or of `planned_trial(trial)`; what is not given is unmeasured."""
    planned = planned_trial(trial) if isinstance(trial, str) else trial
    record = TrialRecord(
        sweep=sweep,
        trial_id=planned.trial_id,
        config_id=planned.config_id,
        task=planned.task,
        backbone=planned.config.backbone,
        method=planned.config.method,
        seed=planned.config.seed,
        fold=planned.config.fold,
        status=TrialStatus(status),
        hyperparameters=planned.config.hyperparameters(),
        trained_params=planned.trained_params,
        trained_params_without_head=planned.trained_params_without_head,
        total_params=planned.total_params,
        provenance=planned.provenance,
    )
    return dataclasses.replace(record, **changes)


def measured_record(
    trial: PlannedTrial | str = "t0", status: str = TrialStatus.COMPLETED, **changes: Any
) -> TrialRecord:
    """The end of a trial after two epochs, of which nearly everything was measured."""
    measured: dict[str, Any] = {
        "sweep": "quickstart",
        "trained_params": 1234,
        "metric": "accuracy",
        "validation_score": 0.7,
        "test_score": 0.65,
        "best_epoch": 2,
        "started_at": "2025-01-02T03:04:05+00:00",
        "provenance": {"commit": "abc", "torch": "2.13.0"},
        "validation": {"accuracy": 0.7, "loss": 0.75},
        "test": {"accuracy": 0.65},
        "epochs": epoch_reports(0.6, 0.7),
    }
    return trial_record(trial, status, **(measured | changes))


def epoch_reports(*scores: float, **changes: Any) -> tuple[EpochReport, ...]:
    """Epochs with these validation scores, from the first on."""
    return tuple(epoch_report(epoch, validation_score=score, **changes) for epoch, score in enumerate(scores, start=1))


def records_of(plan: SweepPlan, numbers: Sequence[int], **changes: Any) -> list[TrialRecord]:
    """The ends of a plan's trials at these places, in its sweep."""
    return [trial_record(plan.trials[number], sweep=plan.spec.name, **changes) for number in numbers]
