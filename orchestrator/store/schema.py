"""The columns of the store's Parquet files: their types, their order, and how files that differ become one table.

Which hyperparameters and metric components a record has depends on its method and task, so segments differ in
columns. Everything else has one fixed type, whatever the sweep.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence

import pyarrow as pa
import pyarrow.compute as pc

from orchestrator.planning.plan import planned_hyperparameters
from orchestrator.record import TrialStatus
from trainables.config import HYPERPARAMETERS, Scalar

# Each epoch's components are a map, so that this column has one type for all tasks.
EPOCH = pa.struct(
    [
        ("epoch", pa.int64()),
        ("step", pa.int64()),
        ("train_loss", pa.float64()),
        ("validation_score", pa.float64()),
        ("validation", pa.map_(pa.string(), pa.float64())),
        ("duration_s", pa.float64()),
    ]
)

IDENTITY = {
    "sweep": pa.string(),
    "trial_id": pa.string(),
    "config_id": pa.string(),
    "task": pa.string(),
    "backbone": pa.string(),
    "method": pa.string(),
    "seed": pa.int64(),
    "fold": pa.int64(),
    "status": pa.string(),
}
MEASURES = {
    "trained_params": pa.int64(),
    "trained_params_without_head": pa.int64(),
    "total_params": pa.int64(),
    "metric": pa.string(),
    "validation_score": pa.float64(),
    "test_score": pa.float64(),
    "best_epoch": pa.int64(),
    "duration_s": pa.float64(),
    "examples_per_second": pa.float64(),
    "pack_size": pa.float64(),
    "peak_memory_bytes": pa.int64(),
    "started_at": pa.string(),
    "engine": pa.string(),
    "error": pa.string(),
}
FIXED = {**IDENTITY, **MEASURES, "schema_version": pa.int64(), "epochs": pa.list_(EPOCH)}
PROVENANCE = "provenance"  # a struct of strings, whose fields are the keys that the sweep's records have
_FIRST_PROVENANCE_KEY = "commit"  # always there: Parquet knows no struct without fields
COMPONENTS = ("validation/", "test/")
_ALWAYS_KNOWN = ("trial_id", "config_id", "task", "backbone", "method", "seed", "status")
_STATUSES = {status.value for status in TrialStatus} - {TrialStatus.PLANNED.value, TrialStatus.RUNNING.value}

_ARROW_TYPES: dict[type, pa.DataType] = {
    bool: pa.bool_(),
    int: pa.int64(),
    float: pa.float64(),
    str: pa.string(),
}
SHARED = {name: _ARROW_TYPES[kind] for name, kind in HYPERPARAMETERS.items()}


def is_component(name: str) -> bool:
    return name.startswith(COMPONENTS)


def is_method_option(name: str) -> bool:
    """Whether a column holds an option of a method: whatever has no meaning of its own to the store."""
    return not (name in FIXED or name in SHARED or name == PROVENANCE or is_component(name))


def column_order(names: Iterable[str]) -> list[str]:
    """The order in which a table shows these columns, whichever order they came in."""
    found = set(names)
    ordered = [*IDENTITY, *sorted(name for name in found if is_method_option(name)), *SHARED, *MEASURES, PROVENANCE]
    ordered += [name for prefix in COMPONENTS for name in sorted(found) if name.startswith(prefix)]
    ordered += ["schema_version", "epochs"]
    return [name for name in ordered if name in found]


def hyperparameter_array(name: str, values: Sequence[Scalar]) -> pa.Array:
    """One hyperparameter of several records. Where values of different kinds meet, text holds them all."""
    present = [_ARROW_TYPES.get(type(value), _arrow_type(value)) for value in values if value is not None]
    kind = _promote(name, present)
    if pa.types.is_string(kind):
        return pa.array([None if v is None else pa.scalar(v).cast(pa.string()).as_py() for v in values], kind)
    return pa.array(values, kind)


def provenance_type(keys: Iterable[str]) -> pa.StructType:
    return pa.struct([(key, pa.string()) for key in sorted({_FIRST_PROVENANCE_KEY, *keys})])


def unify(tables: Sequence[pa.Table]) -> pa.Table:
    """Put tables with different columns under each other, in their order, as one table.

    A column that a table lacks is null there. Whole numbers and fractions become fractions; where numbers and text
    meet, text; a column without a single value has the type that its name asks for. The fixed columns and those of
    the shared hyperparameters are always there.
    """
    runs = [pa.concat_tables(list(run)) for _, run in itertools.groupby(tables, key=lambda table: table.schema)]
    names = column_order({*FIXED, *SHARED, PROVENANCE}.union(*(run.column_names for run in runs)))
    return pa.table({name: _unify_column(name, runs) for name in names})


def with_planned_hyperparameters(table: pa.Table, plan: pa.Table) -> pa.Table:
    """The same rows with a column for every planned hyperparameter, null where no record has it yet.

    `plan` is a plan table. A column that both have gets the type that holds the values of both, so that it is the one
    which it will have when everything planned is recorded. A planned column that cannot be one of a hyperparameter is
    passed over. Raises `pyarrow.ArrowException` where values of different kinds do not go together.
    """
    planned = planned_hyperparameters(plan)
    for name in planned.column_names:
        if not (name in SHARED or is_method_option(name)):
            continue
        here = table[name] if name in table.column_names else pa.chunked_array([pa.nulls(len(table))])
        used = [here.type] if here.null_count < len(here) else []
        used += [] if pa.types.is_null(planned[name].type) else [planned[name].type]
        column = pc.cast(here, _promote(name, used))
        table = table.drop_columns([name] if name in table.column_names else []).append_column(name, column)
    return table.select(column_order(table.column_names))


def conform(table: pa.Table) -> pa.Table:
    """One file's table with every fixed column at its type.

    Raises `pyarrow.ArrowInvalid` (or another `ArrowException`, or `ValueError`) where the file cannot be one of the
    store's.
    """
    if missing := [name for name in ("trial_id", "status", "epochs") if name not in table.column_names]:
        raise pa.ArrowInvalid(f"it has no column {', '.join(missing)}")
    if twice := {name for name in table.column_names if table.column_names.count(name) > 1}:
        raise pa.ArrowInvalid(f"it has several columns {', '.join(sorted(twice))}")
    for name, kind in zip(table.column_names, table.schema.types, strict=True):
        if name != "epochs" and pa.types.is_nested(kind) != (name == PROVENANCE and pa.types.is_struct(kind)):
            raise pa.ArrowInvalid(f"its column {name} holds {kind}")
    table.validate(full=True)
    conformed = unify([table])
    for name in _ALWAYS_KNOWN:
        if conformed[name].null_count:
            raise pa.ArrowInvalid(f"{name} is unknown in some of its rows")
    if strange := set(pc.unique(conformed["status"]).to_pylist()) - _STATUSES:
        raise pa.ArrowInvalid(f"it has a status {sorted(strange)[0]!r}")
    return conformed


def _unify_column(name: str, tables: Sequence[pa.Table]) -> pa.ChunkedArray:
    present = [table[name] if name in table.column_names else None for table in tables]
    used = [column.type for column in present if column is not None and column.null_count < len(column)]
    kind = _column_type(name, used)
    chunks = []
    for table, column in zip(tables, present, strict=True):
        if column is None:
            column = pa.chunked_array([pa.nulls(table.num_rows, kind)])
        elif pa.types.is_struct(kind):
            column = pa.chunked_array([_with_fields(chunk, kind) for chunk in column.chunks], kind)
        elif column.type != kind:
            column = pc.cast(column, kind)
        chunks += column.chunks
    return pa.chunked_array(chunks, kind)


def _column_type(name: str, used: Sequence[pa.DataType]) -> pa.DataType:
    if name == PROVENANCE:
        return provenance_type(field.name for struct in used if pa.types.is_struct(struct) for field in struct)
    if name in FIXED:
        return FIXED[name]
    return pa.float64() if is_component(name) else _promote(name, used)


def _promote(name: str, types: Iterable[pa.DataType]) -> pa.DataType:
    found = {*types, *([SHARED[name]] if name in SHARED else [])}
    if len(found) == 1:
        return found.pop()
    return pa.float64() if found == {pa.int64(), pa.float64()} else pa.string()


def _arrow_type(value: object) -> pa.DataType:
    return next((arrow for kind, arrow in _ARROW_TYPES.items() if isinstance(value, kind)), pa.string())


def _with_fields(struct: pa.StructArray, kind: pa.StructType) -> pa.StructArray:
    """The same values with exactly the fields of `kind`, in its order; a field that is missing is null."""
    here = {field.name for field in struct.type}
    columns = [struct.field(f.name) if f.name in here else pa.nulls(len(struct), f.type) for f in kind]
    return pa.StructArray.from_arrays(columns, fields=list(kind))
