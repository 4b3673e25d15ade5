"""From tables as read to a checked Task: the one place that says what rows a task may have."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import get_args

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from trainables import metrics
from trainables.data import label_sets
from trainables.data import labels as label_columns
from trainables.data.columns import shown
from trainables.data.label_sets import LabelSets
from trainables.data.reading import LINE, SKIP
from trainables.data.splitting import (
    RULE,
    UNSTRATIFIED_RULE,
    VALIDATION_RULE,
    WHOLE,
    cut_off_validation,
    split_rows,
)
from trainables.faults import FaultsError, unknown_name
from trainables.predictions import label_values
from trainables.task import Task, TaskInfo, fingerprint, in_order

logger = logging.getLogger(__name__)

# Rows with a label cannot say what that kind needs.
NO_ANSWERS = "kind: extractive_qa needs answers and their places, as files in the format of SQuAD v1.1 have them"


_KINDS: Mapping[metrics.TaskKind, str] = {
    "classification": "a classification",
    "regression": "a regression",
    "extractive_qa": "an extractive_qa",
    "multilabel": "a task of several labels a text (multilabel)",
}


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
    # The labels that label_names are for, in their order; None where these are 0, 1, 2, ... or the names themselves.
    label_keys: tuple[int, ...] | None = None
    skip_bad_rows: bool = False  # leave out rows without a text or a label, and say how many
    silence: tuple[str, ...] = ()  # names of warnings about the data that are not to be shown
    label_separator: str | None = None  # between several labels of a text, where these are one text
    folds: int | None = None  # how many the rows are to be cut into, beside the splits that they have


def declaration_faults(declared: Declared) -> list[str]:
    """The contradictions within a declaration, whatever the rows are."""
    faults = []
    kind, names, count = declared.kind, declared.label_names, declared.num_labels
    if kind is not None and kind not in get_args(metrics.TaskKind):
        faults.append(f"kind: {unknown_name('kind', kind, get_args(metrics.TaskKind))}")
    if declared.metric is not None and declared.metric not in metrics.METRICS:
        faults.append(f"metric: {unknown_name('metric', declared.metric, metrics.METRICS)}")
    if declared.label_separator is not None and kind not in (None, "multilabel"):
        faults.append(f"label_separator: is for tasks of kind multilabel, but the kind is {kind}")
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
            faults.append(f"num_labels: must be >= 2 for a {kind or 'classification'}, but got {count}")
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
    ours, its = (_KINDS[name] for name in (kind, fits))
    return [f"metric: {metric} fits {its}, but the task is {ours}. Fitting: {fitting}"]


def make_task(
    declared: Declared,
    tables: Mapping[str, pa.Table],
    faults: Sequence[str] = (),
    *,
    notes: Sequence[str] = (),
    names: Mapping[str, Sequence[str]] | None = None,
    cut_validation: bool = False,
    incomplete: Collection[str] = (),
) -> Task:
    """Check every row of every split and put the task together.

    `tables` has train and validation, and may have test and further splits; or it has `WHOLE`, which is cut into
    three; or it has train and `cut_validation`, and validation is cut off it. Columns: text_a, optional text_b, label,
    and `LINE` where rows have a place in a file that faults should name; others are ignored. `names` are those of all
    columns of a split's file. Test splits that hide their labels, or have none, are left out. `faults` and `notes` are
    those met while reading, and `incomplete` are splits of which rows are missing because of them, so that nothing is
    said of what these would have been. Raises `FaultsError` with all faults at once.
    """
    faults, notes = [*faults, *declaration_faults(declared)], list(notes)
    tables = _labelled(tables, notes)
    if declared.kind == "multilabel" or (
        declared.kind is None and (declared.label_separator is not None or label_sets.are_several(tables))
    ):
        declared = dataclasses.replace(declared, kind="multilabel")
        before = len(faults)
        tables = label_sets.with_lists(tables, declared.label_separator, faults, notes)
        tables, width = label_sets.from_places(tables, notes)
        if width and not declared.label_names:
            declared = dataclasses.replace(declared, num_labels=declared.num_labels or width)
        incomplete = tables if len(faults) > before else incomplete
    if declared.skip_bad_rows:
        tables = _without_bad_rows(tables, declared, notes)
    pair = declared.pair if declared.pair is not None else any("text_b" in t.column_names for t in tables.values())
    lines = {split: _lines(table) for split, table in tables.items()}
    columns: dict[str, dict[str, pa.Array]] = {}
    for split, table in tables.items():
        held = list((names or {}).get(split, table.column_names))
        texts, text_faults = _texts(split, table, pair, declared, held, lines[split])
        faults += text_faults
        columns[split] = texts
        if not split.startswith("test") and not table.num_rows and split not in incomplete:
            faults.append(f"{split}: must have at least 1 row, but has 0")
        if "label" not in table.column_names:
            faults.append(f"{split}: needs a column label, but has {shown(held)}")
    sets: dict[str, LabelSets] = {}
    if declared.kind == "multilabel":  # each label of a row is read as a class is
        sets = {s: LabelSets.of(table["label"]) for s, table in tables.items() if "label" in table.column_names}
        faults += _empty_sets(sets, lines, incomplete)
        lines = {split: found.lines(lines[split]) for split, found in sets.items()}
        tables = {split: pa.table({"label": found.labels}) for split, found in sets.items()}
    labels = _parse_labels(declared, tables, lines, faults)
    train = labels.get("train", labels.get(WHOLE))
    for split in [s for s in labels if s.startswith("test") and label_columns.hidden(labels[s], train)]:
        del labels[split], columns[split]
        notes.append(f"{split} hides its labels and counts as absent")
    is_known = not incomplete or bool(declared.label_names) or declared.num_labels is not None
    info = _infer(declared, pair, train, faults) if is_known else None
    if info is not None:
        if info.label_names and info.kind != "regression":
            labels = _by_name(labels, info, declared, faults)
        for split, values in labels.items():
            columns[split]["label"] = _decode(split, values, info, declared, lines[split], faults)
        for split in sets.keys() & labels.keys() if not faults else ():
            columns[split]["label"] = sets[split].matrix(columns[split]["label"], info.num_labels)
            has_NC = label_values(columns[split]["label"])
            if split in ("train", WHOLE) and (has_NC == has_NC[:1]).all():
                faults.append(f"{split}: must have rows of different labels, but every row has the same")
    if faults or info is None:
        raise FaultsError(f"task {declared.name}", faults)
    splits = {split: pa.table(columns[split]) for split in in_order(columns)}
    try:
        if WHOLE in splits:
            splits, rule = split_rows(splits[WHOLE]), RULE
        elif cut_validation:
            splits = cut_off_validation(splits, is_classes=info.kind == "classification")
            rule = UNSTRATIFIED_RULE if info.kind == "multilabel" else VALIDATION_RULE
        else:
            rule = None
    except ValueError as fault:
        raise FaultsError(f"task {declared.name}", [str(fault)]) from None
    if rule is not None:
        info = dataclasses.replace(info, source=f"{info.source}, {rule}")
        notes.append(f"its rows are {rule}" if rule == RULE else rule)
    return Task(
        info=info,
        splits=splits,
        fingerprint=fingerprint(info, splits),
        notes=tuple(notes),
        silence=declared.silence,
        folds=declared.folds,
    )


def _empty_sets(
    sets: Mapping[str, LabelSets], lines: Mapping[str, pa.Array | None], incomplete: Collection[str]
) -> list[str]:
    """The faults of rows that have no list of labels, not even an empty one, and of a train without any label."""
    faults = []
    for split, found in sets.items():
        if split in ("train", WHOLE) and not len(found.labels) and split not in incomplete:
            faults.append(f"{split}: no row has a label")
        elif pc.any(found.is_null).as_py() and len(found.labels):
            where = label_columns.where(found.is_null, lines[split])
            faults.append(
                f"{split}: label must not be null, but is in {where}. A text without labels has an empty list"
            )
    return faults


def _lines(table: pa.Table) -> pa.Array | None:
    return table[LINE].combine_chunks() if LINE in table.column_names else None


def _labelled(tables: Mapping[str, pa.Table], notes: list[str]) -> dict[str, pa.Table]:
    """The splits without those test splits that have texts and no column of labels."""
    hidden = [
        split
        for split, table in tables.items()
        if split.startswith("test") and "text_a" in table.column_names and "label" not in table.column_names
    ]
    notes += [f"{split} has no labels and counts as absent" for split in hidden]
    return {split: table for split, table in tables.items() if split not in hidden}


def _without_bad_rows(tables: Mapping[str, pa.Table], declared: Declared, notes: list[str]) -> dict[str, pa.Table]:
    """The splits without rows that have no text, no label where others have one, or among numbers a label that is none.

    What is left out is said in `notes`.
    """
    labels = _numbers(tables, declared)
    train = labels.get("train", labels.get(WHOLE))
    is_open = declared.kind is None and declared.num_labels is None and not declared.label_names
    scores = _is_regression(declared) or (is_open and train is not None and label_columns.are_scores(train))
    left: dict[str, pa.Table] = {}
    for split, table in tables.items():
        bad = pa.array(np.zeros(table.num_rows, bool))
        for name in [name for name in ("text_a", "text_b") if name in table.column_names]:
            column = label_columns.as_text(table.column(name))
            if label_columns.is_text(column.type):
                bad = pc.or_(bad, _missing(column, declared).combine_chunks())
        odd = pa.array(np.zeros(table.num_rows, bool))
        if split in labels:
            bare, odd = (
                pc.is_null(labels[split], nan_is_null=True),
                label_columns.are_no_numbers(labels[split], scores=scores),
            )
        elif "label" in table.column_names:  # lists of labels, or a fault that is named as such later
            bare = pc.is_null(table.column("label")).combine_chunks()
        if "label" in table.column_names and not pc.all(pc.or_(bare, odd)).as_py():
            bad, odd = pc.or_(bad, bare), pc.and_not(odd, pc.or_(bad, bare))
        else:
            odd = pc.and_(odd, False)
        said = {"without text or label": bad, "whose label is no finite number": odd}
        for what, rows in said.items():
            if pc.any(rows).as_py():
                notes.append(f"{split}: left out {label_columns.where(rows, _lines(table))} {what}")
                logger.warning("task %s: %s", declared.name, notes[-1])
        left[split] = table.filter(pc.invert(pc.or_(bad, odd)))
    return left


def _numbers(tables: Mapping[str, pa.Table], declared: Declared) -> dict[str, pa.Array]:
    """The labels of the splits that have numbers or names, read as far as they can be with bad ones among them."""
    labels: dict[str, pa.Array] = {}
    for split, table in tables.items():
        if "label" in table.column_names:
            try:
                labels[split] = label_columns.parse(table.column("label"))
            except ValueError:  # a list of labels, or a fault that is named as such later
                continue
    names = declared.label_names or ()
    return label_columns.read_numbers(labels, names, scores=_is_regression(declared))


def _remedy(declared: Declared, lines: pa.Array | None) -> str:
    """What to do about rows that cannot be used, where they have lines in a file."""
    if lines is None:
        return ""
    return ". Mend or take out such rows" + ("" if declared.skip_bad_rows else f", or leave them out by {SKIP}")


def _missing(column: pa.ChunkedArray, declared: Declared) -> pa.ChunkedArray:
    missing = pc.is_null(column)
    if declared.allow_empty_text:
        return missing
    return pc.or_(missing, pc.equal(pc.utf8_trim_whitespace(pc.fill_null(column, "")), ""))


def _texts(
    split: str, table: pa.Table, pair: bool, declared: Declared, held: Sequence[str], lines: pa.Array | None
) -> tuple[dict[str, pa.Array], list[str]]:
    """The text columns of a split as string, and their faults."""
    texts, faults = {}, []
    if declared.pair is False and "text_b" in table.column_names:
        faults.append(f"{split}: pair is false, but there is a column text_b")
    for name in ("text_a", "text_b") if pair else ("text_a",):
        if name not in table.column_names:
            faults.append(f"{split}: needs a column {name}, but has {shown(held)}")
            continue
        column = table.column(name)
        if pa.types.is_dictionary(column.type) or pa.types.is_null(column.type):
            column = column.cast(pa.string())
        column = label_columns.as_text(column)
        if not label_columns.is_text(column.type):
            faults.append(f"{split}: {name} must be text, but is {column.type}")
            continue
        missing = _missing(column, declared)
        if pc.any(missing).as_py():
            faults.append(
                f"{split}: {name} must not be null or empty, but is in {label_columns.where(missing, lines)}"
                f"{_remedy(declared, lines)}"
            )
        texts[name] = pa.chunked_array(column.cast(pa.string()).chunks, pa.string())
    return texts, faults


def _parse_labels(
    declared: Declared, tables: Mapping[str, pa.Table], lines: Mapping[str, pa.Array | None], faults: list[str]
) -> dict[str, pa.Array]:
    labels = {}
    for split, table in tables.items():
        if "label" not in table.column_names:
            continue
        try:
            labels[split] = label_columns.parse(table.column("label"))
        except ValueError as fault:
            faults.append(f"{split}: {fault}")
    names = declared.label_names or ()
    labels = label_columns.read_numbers(labels, names, scores=_is_regression(declared))
    labels = label_columns.without_blanks(labels, names)
    if names or declared.kind is not None:
        return labels
    strange = {split: label_columns.strange_names(values, lines[split]) for split, values in labels.items()}
    faults += [f"{split}: {fault}" for split, fault in strange.items() if fault is not None]
    if any(strange.get(split) for split in ("train", WHOLE)):
        return {}  # of which nothing more can be said
    return {split: values for split, values in labels.items() if strange[split] is None}


def _is_regression(declared: Declared) -> bool:
    """Whether the declaration alone says so."""
    metric = metrics.METRICS.get(declared.metric or "")
    said = declared.kind or ("regression" if declared.num_labels == 1 else metric.kind if metric else None)
    return said == "regression"


def _by_name(
    labels: Mapping[str, pa.Array], info: TaskInfo, declared: Declared, faults: list[str]
) -> dict[str, pa.Array]:
    """The labels where classes have names: whole numbers that stand for names made names."""
    if declared.label_keys is not None:
        return label_columns.read_names(labels, info.label_names, keys=declared.label_keys)
    if declared.label_names:
        return label_columns.read_names(labels, info.label_names)
    train = labels.get("train", labels.get(WHOLE))
    if train is not None and not pa.types.is_string(train.type):
        return label_columns.read_names(labels, info.label_names, always=True)
    # A split that has only the label "1" reads as numbers, though in train "1" is a name.
    named = {split: label_columns.read_names({split: v}, info.label_names)[split] for split, v in labels.items()}
    for split, values in named.items():
        if not pa.types.is_string(values.type) and values.null_count < len(values):
            faults.append(f"{split}: labels must be names as in train, but are numbers")
    return named


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
    if kind in ("classification", "multilabel"):
        num_labels = declared.num_labels or len(names) or None
        if num_labels is None:
            if train is None:
                return None
            if not len(train):  # a fault already, and no class is known
                return None
            inferred = label_columns.infer_classes(train, declared=declared.kind is not None)
            if isinstance(inferred, str):
                faults += [inferred]
                return None
            num_labels, names = inferred
        elif not names and train is not None and pa.types.is_string(train.type):
            names = _names_from(train, num_labels, faults)
    return TaskInfo(
        name=declared.name,
        kind=kind,
        pair=pair,
        num_labels=num_labels or 1,
        label_names=() if kind == "regression" else names,
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


def _decode(
    split: str, labels: pa.Array, info: TaskInfo, declared: Declared, lines: pa.Array | None, faults: list[str]
) -> pa.Array:
    if labels.null_count:
        faults.append(
            f"{split}: label must not be null, but is in {label_columns.where(pc.is_null(labels), lines)}"
            f"{_remedy(declared, lines)}"
        )
    if info.kind == "regression":
        decoded, strange = label_columns.to_scores(labels, lines)
    else:
        decoded, strange = label_columns.to_classes(labels, info.num_labels, info.label_names, lines)
        if strange and split not in ("train", WHOLE) and pa.types.is_string(labels.type) and not declared.label_names:
            strange[-1] += "; classes are those of train; name all of them by label_names in task.json to have more"
    if info.kind == "regression" and strange and pc.any(label_columns.are_no_numbers(labels, scores=True)).as_py():
        strange[-1] += _remedy(declared, lines)
    faults += [f"{split}: {fault}" for fault in strange]
    distinct = pc.count_distinct(decoded).as_py()
    if split in ("train", WHOLE) and distinct == 1 and not strange and info.kind != "multilabel":
        what = "two classes" if info.kind == "classification" else "two different scores"
        only = decoded.drop_null()[0].as_py()
        only = info.label_names[only] if info.label_names else only
        faults.append(f"{split}: must have at least {what}, but every label is {only}")
    return decoded
