"""What must hold after a round: the table of the undisturbed sweep, and MLflow equal to the records."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
from pyarrow.fs import FileSelector

from orchestrator.record import TrialStatus
from orchestrator.store import Store
from orchestrator.tracking.status import run_status
from tests.chaos.faults import TORN
from tests.chaos.tracking import EPOCH_METRICS, Shown

# Which trials train together is up to chance, and changes the order of floating-point sums: losses of the same trial
# differed by 2e-7 at most, and no prediction did.
LOSS_TOLERANCE = 1e-4

# What a trial's outcome is, and when and where it happened to be trained is not.
OUTCOME = (
    "config_id", "task", "backbone", "method", "seed", "status", "trained_params", "trained_params_without_head",
    "total_params", "metric", "validation_score", "test_score", "best_epoch",
)  # fmt: skip

Row = Mapping[str, Any]


def table(store: Path | str) -> list[Row]:
    """The records of a store, a row each, as a reader sees them."""
    return Store(store).trials().to_pylist()


def compare(store: Path | str, expected: Sequence[Row]) -> list[str]:
    """In what a store differs from the undisturbed sweep's table."""
    opened = Store(store)
    epochs: dict[str, list[Row]] = {}
    for epoch in opened.epochs().to_pylist():
        epochs.setdefault(epoch["trial_id"], []).append(epoch)
    rows = {row["trial_id"]: row for row in opened.trials().to_pylist()}
    faults = [f"{row['trial_id']} is lost" for row in expected if row["trial_id"] not in rows]
    known = {row["trial_id"] for row in expected}
    faults += [f"{trial_id} was never planned" for trial_id in rows if trial_id not in known]
    faults += [f"{trial_id} is stored {count} times" for trial_id, count in _stored(store).items() if count > 1]
    for wanted in expected:
        if row := rows.get(wanted["trial_id"]):
            faults += [
                f"{row['trial_id']}: {column} is {row[column]!r}, not {wanted[column]!r}"
                for column in OUTCOME
                if row[column] != wanted[column]
            ]
            faults += _curve_faults(row, wanted, epochs.get(row["trial_id"], []))
    return faults


def _curve_faults(row: Row, wanted: Row, epochs: Sequence[Row]) -> list[str]:
    name, planned = row["trial_id"], row["num_epochs"]
    if row["status"] != TrialStatus.COMPLETED:
        told = (row["error"] or "").strip().splitlines()
        as_before = (wanted["error"] or "").strip().splitlines()
        return [] if told[-1:] == as_before[-1:] else [f"{name}: failed with {told[-1:]}, not {as_before[-1:]}"]
    if [epoch["epoch"] for epoch in epochs] != list(range(1, planned + 1)):
        return [f"{name}: its epochs are {[epoch['epoch'] for epoch in epochs]}"]
    loss, as_before = row["validation/loss"], wanted["validation/loss"]
    if not math.isclose(loss, as_before, rel_tol=0, abs_tol=LOSS_TOLERANCE):
        return [f"{name}: its validation loss is {loss}, not {as_before}"]
    return []


def _stored(store: Path | str) -> Counter[str]:
    """trial_id -> how often it is in the segments, which readers see once."""
    counts: Counter[str] = Counter()
    opened = Store(store)
    for file in opened.filesystem.get_file_info(FileSelector(f"{opened.path}/trials")):
        name = file.base_name
        if name.startswith("part-") and name.endswith(".parquet") and TORN not in name:
            segment = pq.read_table(file.path, columns=["trial_id"], filesystem=opened.filesystem)
            counts.update(segment["trial_id"].to_pylist())
    return counts


def compare_mlflow(store: Path | str, sweeps: Sequence[str], runs: Mapping[str, Sequence[Shown]]) -> list[str]:
    """In what MLflow differs from the records of a store."""
    rows = {row["trial_id"]: row for row in table(store)}
    has_failed = any(row["status"] == TrialStatus.FAILED for row in rows.values())
    end = run_status(TrialStatus.FAILED if has_failed else TrialStatus.COMPLETED)
    faults = [] if list(sweeps) == [end] else [f"MLflow: the sweep's runs are {list(sweeps)}, not [{end}]"]
    faults += [f"MLflow: {trial_id} has a run and no record" for trial_id in runs if trial_id not in rows]
    for trial_id, row in rows.items():
        found = runs.get(trial_id, ())
        if len(found) != 1:
            faults.append(f"MLflow: {trial_id} has {len(found)} runs")
            continue
        faults += [f"MLflow: {trial_id}: {fault}" for fault in _run_faults(found[0], row)]
    return faults


def _run_faults(shown: Shown, row: Row) -> list[str]:
    faults = []
    if shown.status != (wanted := run_status(TrialStatus(row["status"]))):
        faults.append(f"its status is {shown.status}, not {wanted}")
    for name in ("validation_score", "test_score", "duration_s"):
        if shown.metrics.get(name) != row[name] and not (row[name] is None and name not in shown.metrics):
            faults.append(f"{name} is {shown.metrics.get(name)}, not {row[name]}")
    if row["status"] == TrialStatus.COMPLETED:
        steps = list(range(1, row["num_epochs"] + 1))
        for name in EPOCH_METRICS:
            if sorted(shown.points.get(name, ())) != steps:
                faults.append(f"the points of {name} are at {shown.points.get(name)}")
    return faults
