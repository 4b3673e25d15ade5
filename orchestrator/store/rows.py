"""Records as rows of a table and rows as records, without loss in either direction."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa

from orchestrator.record import TrialRecord, TrialStatus
from orchestrator.store.schema import (
    FIXED,
    IDENTITY,
    MEASURES,
    PROVENANCE,
    SHARED,
    hyperparameter_array,
    is_component,
    is_method_option,
    provenance_type,
    unify,
)
from trainables.outcome import EpochReport


def table_from_records(records: Sequence[TrialRecord]) -> pa.Table:
    """One row a record, in their order, with the columns of `orchestrator.store.schema`.

    Raises `ValueError` where a hyperparameter has the name of another column.
    """
    hyperparameters = {name for record in records for name in record.hyperparameters}
    if taken := [name for name in sorted(hyperparameters) if not (name in SHARED or is_method_option(name))]:
        raise ValueError(f"a hyperparameter must not have the name of another column, but got {', '.join(taken)}")
    columns: dict[str, pa.Array] = {
        name: pa.array([getattr(record, name) for record in records], FIXED[name])
        for name in [*IDENTITY, *MEASURES, "schema_version"]
    }
    for name in hyperparameters:
        columns[name] = hyperparameter_array(name, [record.hyperparameters.get(name) for record in records])
    for prefix in ("validation", "test"):
        measured = [getattr(record, prefix) for record in records]
        for key in {key for components in measured for key in components}:
            columns[f"{prefix}/{key}"] = pa.array([components.get(key) for components in measured], pa.float64())
    provenance = [dict(record.provenance) for record in records]
    columns[PROVENANCE] = pa.array(provenance, provenance_type(key for keys in provenance for key in keys))
    columns["epochs"] = pa.array([[_epoch_row(e) for e in record.epochs] for record in records], FIXED["epochs"])
    return unify([pa.table(columns)])


def records_from_table(table: pa.Table) -> list[TrialRecord]:
    """The records whose rows a table holds, in its order: the inverse of `table_from_records`."""
    return [_record(row) for row in table.to_pylist()]


def _epoch_row(report: EpochReport) -> dict[str, Any]:
    return {**dataclasses.asdict(report), "validation": list(report.validation.items())}


def _record(row: Mapping[str, Any]) -> TrialRecord:
    options = {name: value for name, value in row.items() if is_method_option(name) and value is not None}
    return TrialRecord(
        **{name: row[name] for name in [*IDENTITY, *MEASURES, "schema_version"] if name != "status"},
        status=TrialStatus(row["status"]),
        hyperparameters={**{name: row[name] for name in SHARED}, **options},
        provenance={key: value for key, value in (row[PROVENANCE] or {}).items() if value is not None},
        validation=_components(row, "validation/"),
        test=_components(row, "test/"),
        epochs=tuple(
            EpochReport(**{**epoch, "validation": dict(epoch["validation"] or ())}) for epoch in row["epochs"] or ()
        ),
    )


def _components(row: Mapping[str, Any], prefix: str) -> dict[str, float]:
    return {
        name.removeprefix(prefix): value
        for name, value in row.items()
        if is_component(name) and name.startswith(prefix) and value is not None
    }
