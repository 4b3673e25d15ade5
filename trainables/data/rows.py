"""From tables as read to a checked Task: the one place that says what rows a task may have."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import get_args

import pyarrow as pa
import pyarrow.compute as pc

from trainables import metrics
from trainables.data import labels as label_columns
from trainables.data.splitting import RULE, WHOLE, split_rows
from trainables.faults import FaultsError, unknown_name
from trainables.task import Task, TaskInfo, fingerprint, in_order

# Rows with a label cannot say what that kind needs.
NO_ANSWERS = "kind: extractive_qa needs answers and their places, as files in the format of SQuAD v1.1 have them"


@dataclass(frozen=True, kw_only=True)
class Declared:
    """What a task says of itself before its rows are read; None is left to be inferred from the train split."""

    name: str
    source: str
    kind: metrics.TaskKind | None = None
    pair: bool | None = None
    num_labels: int | None = None
    label_names: tuple[str, ...] | None = None
    metric: str | None = None
    # Published benchmarks are taken as they are: a handful of rows of GLUE's QQP have an empty question.
    allow_empty_text: bool = False


def declaration_faults(declared: Declared) -> list[str]:
    """The contradictions within a declaration, whatever the rows are."""
    faults = []
    kind, names, count = declared.kind, declared.label_names, declared.num_labels
    if kind is not None and kind not in get_args(metrics.TaskKind):
        faults.append(f"kind: {unknown_name('kind', kind, get_args(metrics.TaskKind))}")
    if declared.metric is not None and declared.metric not in metrics.METRICS:
        faults.append(f"metric: {unknown_name('metric', declared.metric, metrics.METRICS)}")
    if kind == "extractive_qa":
        if count is not None or names:
            faults.append(f"num_labels and label_names: must be absent where kind is {kind}")
    elif kind == "regression":
        if count not in (None, 1):
            faults.append(f"num_labels: must be 1 or absent for a regression, but got {count}")
        if names:
            faults.append(f"label_names: must be absent for a regression, but got {len(names)} names")
    else:
        if count is not None and count < 2 and not (count == 1 and kind is None):
            faults.append(f"num_labels: must be >= 2 for a classification, but got {count}")
        if names and count is not None and len(names) != count:
            faults.append(f"label_names: must be num_labels = {count} names, but got {len(names)}")
        if names and len(set(names)) != len(names):
            faults.append("label_names: must differ from each other, but some are equal")
    return faults


def metric_faults(metric: str, kind: metrics.TaskKind) -> list[str]:
    """The fault of a known metric that does not measure this kind of task."""
    if metric not in metrics.METRICS or (fits := metrics.METRICS[metric].kind) == kind:
        return []
    fitting = ", ".join(sorted(m.name for m in metrics.METRICS.values() if m.kind == kind))
    ours, its = (f"an {name}" if name.startswith("e") else f"a {name}" for name in (kind, fits))
    return [f"metric: {metric} fits {its}, but the task is {ours}. Fitting: {fitting}"]


def make_task(declared: Declared, tables: Mapping[str, pa.Table], faults: Sequence[str] = ()) -> Task:
    """Check every row of every split and put the task together.

    `tables` has train and validation, and may have test and further splits; or it has `WHOLE`, which is cut into
    three. Columns: text_a, optional text_b, and label; others are ignored. Test splits that hide their labels are left
    out. `faults` are those met while reading. Raises `FaultsError` with all faults at once.
    """
    faults = [*faults, *declaration_faults(declared)]
    pair = declared.pair if declared.pair is not None else any("text_b" in t.column_names for t in tables.values())
    columns: dict[str, dict[str, pa.Array]] = {}
    for split, table in tables.items():
        texts, text_faults = _texts(split, table, pair, declared)
        faults += text_faults
        columns[split] = texts
        if not split.startswith("test") and not table.num_rows:
            faults.append(f"{split}: must have at least 1 row, but has 0")
    labels = _parse_labels(declared, tables, faults)
    for split in [split for split in labels if split.startswith("test") and label_columns.hidden(labels[split])]:
        del labels[split], columns[split]
    info = _infer(declared, pair, labels.get("train", labels.get(WHOLE)), faults)
    if info is not None:
        for split, values in labels.items():
            if info.label_names and not declared.label_names and not pa.types.is_string(values.type):
                # A split that has only the label "1" reads as numbers, though in train "1" is a name.
                values = label_columns.parse(tables[split].column("label"), info.label_names)
                if not pa.types.is_string(values.type) and values.null_count < len(values):
                    faults.append(f"{split}: labels must be names as in train, but are numbers")
            columns[split]["label"] = _decode(split, values, info, faults)
    if faults or info is None:
        raise FaultsError(f"task {declared.name}", faults)
    splits = {split: pa.table(columns[split]) for split in in_order(columns)}
    if WHOLE in splits:
        try:
            splits = split_rows(splits[WHOLE])
        except ValueError as fault:
            raise FaultsError(f"task {declared.name}", [str(fault)]) from None
        info = dataclasses.replace(info, source=f"{info.source}, {RULE}")
    return Task(info=info, splits=splits, fingerprint=fingerprint(info, splits))


def _texts(split: str, table: pa.Table, pair: bool, declared: Declared) -> tuple[dict[str, pa.Array], list[str]]:
    """The text columns of a split as string, and their faults."""
    texts, faults = {}, []
    if declared.pair is False and "text_b" in table.column_names:
        faults.append(f"{split}: pair is false, but there is a column text_b")
    for name in ("text_a", "text_b") if pair else ("text_a",):
        if name not in table.column_names:
            faults.append(f"{split}: needs a column {name}, but has {', '.join(table.column_names) or 'none'}")
            continue
        column = table.column(name)
        if pa.types.is_dictionary(column.type) or pa.types.is_null(column.type):
            column = column.cast(pa.string())
        if not label_columns.is_text(column.type):
            faults.append(f"{split}: {name} must be text, but is {column.type}")
            continue
        missing = pc.is_null(column)
        if not declared.allow_empty_text:
            missing = pc.or_(missing, pc.equal(pc.utf8_trim_whitespace(pc.fill_null(column, "")), ""))
        if pc.any(missing).as_py():
            faults.append(f"{split}: {name} must not be null or empty, but is in {label_columns.where(missing)}")
        texts[name] = pa.chunked_array(column.cast(pa.string()).chunks, pa.string())
    return texts, faults


def _parse_labels(declared: Declared, tables: Mapping[str, pa.Table], faults: list[str]) -> dict[str, pa.Array]:
    labels = {}
    for split, table in tables.items():
        if "label" not in table.column_names:
            faults.append(f"{split}: needs a column label, but has {', '.join(table.column_names) or 'none'}")
            continue
        try:
            labels[split] = label_columns.parse(table.column("label"), declared.label_names or ())
        except ValueError as fault:
            faults.append(f"{split}: {fault}")
    return labels


def _infer(declared: Declared, pair: bool, train: pa.Array | None, faults: list[str]) -> TaskInfo | None:
    """The facts of the task, what is not declared taken from the train labels; None where a fault is in the way."""
    kind = declared.kind
    if kind is None and train is not None:
        kind = _infer_kind(declared, train)
    if kind is None or kind not in get_args(metrics.TaskKind):
        return None
    if kind == "extractive_qa":
        faults.append(NO_ANSWERS)
        return None
    metric = declared.metric or metrics.DEFAULT_METRIC[kind]
    faults += metric_faults(metric, kind)
    names = declared.label_names or ()
    num_labels: int | None = 1
    if kind == "classification":
        num_labels = declared.num_labels or len(names) or None
        if num_labels is None:
            inferred = label_columns.infer_classes(train) if train is not None else None
            if inferred is None or isinstance(inferred, str):
                faults += [inferred] if inferred else []
                return None
            num_labels, names = inferred
        elif not names and train is not None and pa.types.is_string(train.type):
            names = _names_from(train, num_labels, faults)
    return TaskInfo(
        name=declared.name,
        kind=kind,
        pair=pair,
        num_labels=num_labels or 1,
        label_names=names if kind == "classification" else (),
        metric=metric,
        source=declared.source,
    )


def _infer_kind(declared: Declared, train: pa.Array) -> metrics.TaskKind:
    """What the declaration implies, else what the labels are: classes, unless some are numbers that are not whole."""
    if declared.num_labels == 1:
        return "regression"
    if declared.num_labels is not None or declared.label_names:
        return "classification"
    if declared.metric in metrics.METRICS and metrics.METRICS[declared.metric].kind == "regression":
        return "regression"
    return label_columns.infer_kind(train)


def _names_from(train: pa.Array, num_labels: int, faults: list[str]) -> tuple[str, ...]:
    """The label names of a train split that says how many there must be."""
    names = tuple(pc.unique(train.drop_null()).sort().to_pylist())
    if len(names) != num_labels:
        faults.append(f"num_labels: must be the number of label names in train, {len(names)}, but got {num_labels}")
    return names


def _decode(split: str, labels: pa.Array, info: TaskInfo, faults: list[str]) -> pa.Array:
    if labels.null_count:
        faults.append(f"{split}: label must not be null, but is in {label_columns.where(pc.is_null(labels))}")
    if info.kind == "regression":
        decoded, strange = label_columns.to_scores(labels)
    else:
        decoded, strange = label_columns.to_classes(labels, info.num_labels, info.label_names)
    faults += [f"{split}: {fault}" for fault in strange]
    distinct = pc.count_distinct(decoded).as_py()
    if split in ("train", WHOLE) and distinct == 1 and not strange:
        what = "two classes" if info.kind == "classification" else "two different scores"
        faults.append(f"{split}: must have at least {what}, but every label is {decoded.drop_null()[0].as_py()}")
    return decoded
