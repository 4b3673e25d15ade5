"""Records to store, and plans."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import pyarrow as pa
import pytest

from orchestrator.record import TrialRecord, TrialStatus
from trainables.outcome import EpochReport


def _record(trial_id: str = "t0", status: str = "completed", **changes: Any) -> TrialRecord:
    hyperparameters = {"learning_rate": 1e-3, "num_epochs": 2, "dropout": None, "precision": "auto", "adapter_size": 64}
    epochs = tuple(
        EpochReport(
            epoch=epoch,
            step=10 * epoch,
            train_loss=1 / epoch,
            validation_score=0.5 + epoch / 10,
            validation={"accuracy": 0.5 + epoch / 10, "loss": 1.5 / epoch},
            duration_s=2.5,
        )
        for epoch in (1, 2)
    )
    record = TrialRecord(
        sweep="quickstart",
        trial_id=trial_id,
        config_id=f"c-{trial_id}",
        task="toy/sentiment",
        backbone="minilm",
        method="adapter",
        seed=0,
        status=TrialStatus(status),
        hyperparameters=hyperparameters,
        trained_params=1234,
        metric="accuracy",
        validation_score=0.7,
        test_score=0.65,
        best_epoch=2,
        started_at="2025-01-02T03:04:05+00:00",
        provenance={"commit": "abc", "torch": "2.13.0"},
        validation={"accuracy": 0.7, "loss": 0.75},
        test={"accuracy": 0.65},
        epochs=epochs,
    )
    return dataclasses.replace(record, **changes)


@pytest.fixture(scope="session")
def record() -> Callable[..., TrialRecord]:
    """`record(trial_id, status, **fields)`: a record that is complete but for what is asked."""
    return _record


def _plan(*trial_ids: str, sweep: str = "quickstart", **columns: Any) -> pa.Table:
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


@pytest.fixture(scope="session")
def make_plan() -> Callable[..., pa.Table]:
    """`make_plan("t0", "t1", sweep="a", **columns)`: the plan of a sweep with these trials."""
    return _plan


@pytest.fixture(scope="session")
def plan() -> pa.Table:
    return _plan("t0", "t1")
