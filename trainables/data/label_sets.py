"""Several labels a text: in lists, in texts with a separator between labels, and in columns of 0 and 1.

Whatever the file has, it becomes a column of lists of labels, which `trainables.data.rows` reads as it reads classes.
A list may be empty: a text without any label is an example like any other.
"""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from trainables.data import labels as label_columns
from trainables.data.splitting import WHOLE

FLAG = "label: "  # before the name of a file's column that may have 1 where a row has the label of that name
SEPARATORS = (",", ";", "|")  # looked for where a declaration says that there may be several labels and not how
_YES, _NO = ("1", "1.0", "true"), ("0", "0.0", "false")


@dataclass(frozen=True, kw_only=True, eq=False)
class LabelSets:
    """The labels of a split, one after the other, and which row each is of."""

    labels: pa.ChunkedArray
    rows: np.ndarray  # int64 (labels,), counted from 0
    num_rows: int
    is_null: pa.Array  # (num_rows,)

    @staticmethod
    def of(column: pa.ChunkedArray) -> LabelSets:
        """Of a column of lists."""
        lists = column.combine_chunks()
        return LabelSets(
            labels=pa.chunked_array([lists.flatten()]),
            rows=pc.list_parent_indices(lists).to_numpy(zero_copy_only=False).astype(np.int64),
            num_rows=len(lists),
            is_null=pc.is_null(lists),
        )

    def lines(self, of_rows: pa.Array | None) -> pa.Array:
        """The line of each label, or the number of its row, counted from 1, where rows have no lines."""
        return pa.array(self.rows + 1) if of_rows is None else of_rows.take(pa.array(self.rows))

    def matrix(self, indices: pa.Array, num_labels: int) -> pa.Array:
        """A fixed-size list of truth values a row, from the index of each label."""
        has = np.zeros((self.num_rows, num_labels), bool)
        has[self.rows, indices.to_numpy(zero_copy_only=False)] = True
        return pa.FixedSizeListArray.from_arrays(pa.array(has.reshape(-1)), num_labels)


def are_several(tables: Mapping[str, pa.Table]) -> bool:
    """Whether the labels of train can only be meant as lists: they are lists, or each is written as one."""
    for split in ("train", WHOLE):
        if split not in tables or "label" not in tables[split].column_names:
            continue
        column = tables[split]["label"]
        if _is_list(column.type):
            return True
        column = label_columns.as_text(column)
        if label_columns.is_text(column.type):
            written = [text for text in column.unique().to_pylist() if text]
            return bool(written) and all(_written_list(text) is not None for text in written)
    return False


def with_lists(
    tables: Mapping[str, pa.Table], separator: str | None, faults: list[str], notes: list[str]
) -> dict[str, pa.Table]:
    """The same splits with a list of labels in each row; all are empty where a fault is in the way."""
    columns = {split: table["label"] for split, table in tables.items() if "label" in table.column_names}
    found = dict(tables)
    try:
        if separator is None and not any(_is_list(column.type) for column in columns.values()):
            separator = _separator(columns, notes)
    except ValueError as fault:
        faults.append(str(fault))
        columns = {split: pa.chunked_array([pa.array([""] * len(column))]) for split, column in columns.items()}
    for split, column in columns.items():
        place = tables[split].column_names.index("label")
        found[split] = tables[split].set_column(place, "label", _lists(column, separator))
    return found


def from_places(tables: Mapping[str, pa.Table], notes: list[str]) -> tuple[dict[str, pa.Table], int]:
    """The splits with lists of labels in place of lists that have a 0 or a 1 for each; and how many labels there are.

    Lists are taken for such where all are of one length and hold 0 and 1 alone, some of them twice or more: a label
    stands once. Else the splits come back as they are, and 0. A label is called by its place, counted from 0.
    """
    columns = {split: table["label"] for split, table in tables.items() if "label" in table.column_names}
    has = {split: _flags_of_lists(column) for split, column in columns.items()}
    widths = {flags.shape[1] for flags in has.values() if flags is not None}
    known = [flags for flags in has.values() if flags is not None]
    if len(known) < len(has) or len(widths) != 1 or not any(_is_twice(flags) for flags in known):
        return dict(tables), 0
    found, width = dict(tables), widths.pop()
    for split, column in columns.items():
        flags, is_null = has[split], np.asarray(pc.is_null(column).to_numpy())
        assert flags is not None
        counts = np.zeros(len(column), np.int64)
        counts[~is_null] = flags.sum(axis=1)
        offsets = pa.array(np.concatenate([[0], np.cumsum(counts)]).astype(np.int32))
        labels = pa.ListArray.from_arrays(offsets, pa.array(np.nonzero(flags)[1]), mask=pa.array(is_null))
        found[split] = found[split].set_column(found[split].column_names.index("label"), "label", labels)
    notes.append(f"labels are lists of {width} numbers of 0 and 1, one for each label")
    return found, width


def _flags_of_lists(column: pa.ChunkedArray) -> np.ndarray | None:
    """Lists of one length as truth values (rows that have one, length); None where they hold anything but 0 and 1."""
    rows = column.combine_chunks().drop_null()
    lengths, values = pc.unique(pc.list_value_length(rows)).to_pylist(), rows.flatten()
    if len(lengths) != 1 or lengths[0] < 2 or values.null_count:
        return None
    flags = _flags(pa.chunked_array([values]))
    return None if flags is None else flags.reshape(-1, lengths[0])


def _is_twice(flags: np.ndarray) -> bool:
    """Whether some row has a value twice."""
    yes = flags.sum(axis=1)
    return bool(((yes > 1) | (flags.shape[1] - yes > 1)).any())


def from_flags(
    tables: Mapping[str, pa.Table], asked: Sequence[str] | None, faults: list[str], notes: list[str]
) -> tuple[dict[str, pa.Table], tuple[str, ...]]:
    """The splits with a list of labels in place of the columns of 0 and 1 that were read with them.

    `asked` are the columns that were declared to be labels. Without, all columns of train that hold nothing but 0 and 1
    are, if there are several and they cannot be one label that was spread over columns: some row has none of them, or
    several. Gives the names of the labels too, none where there are no such columns.
    """
    bare = {split: _without_flags(table) for split, table in tables.items()}
    train = tables.get("train", tables.get(WHOLE))
    if train is None:
        return bare, ()
    names = tuple(asked) if asked is not None else _recognised(train)
    if not names:
        return bare, ()
    if asked is None:
        notes.append(f"a label each (multilabel): {', '.join(names)}")
    for split, table in tables.items():
        flags = [_flags(table[FLAG + name]) if FLAG + name in table.column_names else None for name in names]
        if split.startswith("test") and all(flag is None for flag in flags):
            continue  # not labelled
        if absent := [name for name in names if FLAG + name not in table.column_names]:
            faults.append(f"{split}: needs the columns {', '.join(absent)}, each a label")
            continue
        if wrong := [name for name, flag in zip(names, flags, strict=True) if flag is None]:
            faults.append(f"{split}: a label's column must hold 0 or 1 in every row, but {', '.join(wrong)} does not")
        has = np.stack([np.zeros(table.num_rows, bool) if flag is None else flag for flag in flags], axis=1)
        offsets = np.concatenate([[0], np.cumsum(has.sum(axis=1))]).astype(np.int32)
        labels = pa.array(names, pa.string()).take(pa.array(np.nonzero(has)[1]))
        bare[split] = bare[split].append_column("label", pa.ListArray.from_arrays(pa.array(offsets), labels))
    return bare, names


def _without_flags(table: pa.Table) -> pa.Table:
    return table.select([name for name in table.column_names if not name.startswith(FLAG)])


def _recognised(train: pa.Table) -> tuple[str, ...]:
    if "label" in train.column_names or not train.num_rows:
        return ()
    flags = {name: _flags(train[name]) for name in train.column_names if name.startswith(FLAG)}
    held = {name.removeprefix(FLAG): flag for name, flag in flags.items() if flag is not None}
    if len(held) < 2 or (np.sum(list(held.values()), axis=0) == 1).all():
        return ()
    return tuple(held)


def _flags(column: pa.ChunkedArray) -> np.ndarray | None:
    """Where a column says yes (rows,); None where it says anything but yes and no."""
    column = label_columns.as_text(column)
    if pa.types.is_nested(column.type) or column.null_count:
        return None
    try:
        texts = pc.utf8_lower(pc.utf8_trim_whitespace(column.cast(pa.string())))
    except pa.ArrowException:  # bytes, or something else that is no text
        return None
    if not pc.all(pc.is_in(texts, pa.array([*_YES, *_NO]))).as_py():
        return None
    return np.asarray(pc.is_in(texts, pa.array(_YES)).to_numpy())


def _is_list(kind: pa.DataType) -> bool:
    return pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)


_PLAIN = (str, int)  # and no bool
_IN_MARKS = r"(?:'[^'\\]*'|\"[^\"\\]*\")"
_OF_NUMPY = re.compile(rf"\[\s*(?:{_IN_MARKS}(?:\s+{_IN_MARKS})+|-?\d+(?:\s+-?\d+)+)\s*\]")  # no commas between values


def _written_list(text: str) -> list[str] | None:
    """The labels of a list written as JSON, as Python writes it, a tuple or a set too, or as numpy does.

    That is `["joy", "love"]`, `['joy', 'love']`, `('joy',)` or `['joy' 'love']`. None where a text is no list.
    """
    text = text.strip()
    if text[:1] + text[-1:] not in ("[]", "()", "{}"):
        return None
    if text == "set()":
        return []
    if _OF_NUMPY.fullmatch(text):
        return [part.strip("'\"") for part in re.findall(rf"{_IN_MARKS}|-?\d+", text)]
    for read in (json.loads, ast.literal_eval):
        try:
            values = read(text)
        except (ValueError, SyntaxError, RecursionError, MemoryError):
            continue
        plain = isinstance(values, list | tuple | set) and all(type(value) in (str, int) for value in values)
        return (
            sorted(map(str, values)) if plain and isinstance(values, set) else list(map(str, values)) if plain else None
        )
    return None


def _separator(columns: Mapping[str, pa.ChunkedArray], notes: list[str]) -> str | None:
    """The one of `SEPARATORS` that labels written as text have; None where none has any. Raises `ValueError`."""
    written = [
        text
        for column in columns.values()
        if label_columns.is_text(label_columns.as_text(column).type)
        for text in label_columns.as_text(column).unique().to_pylist()
        if text and _written_list(text) is None
    ]
    found = [separator for separator in SEPARATORS if any(separator in text for text in written)]
    if len(found) > 1:
        came = " and ".join(map(repr, found))
        raise ValueError(
            f"label: labels must have one separator between them, but have {came}. Say which in task.json, as "
            f'"label_separator": "{found[0]}"'
        )
    if found:
        notes.append(f"labels of a text are separated by {found[0]!r}")
    return found[0] if found else None


def _lists(column: pa.ChunkedArray, separator: str | None) -> pa.ChunkedArray:
    """A column of labels as lists of them; a label alone is a list of one, an empty text a list of none."""
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    if _is_list(column.type):
        return column.cast(pa.list_(column.type.value_type))
    column = label_columns.as_text(column)
    if pa.types.is_null(column.type):
        return column.cast(pa.list_(pa.string()))
    if not label_columns.is_text(column.type):
        offsets = pa.array(np.arange(len(column) + 1, dtype=np.int32))
        return pa.chunked_array([pa.ListArray.from_arrays(offsets, column.combine_chunks())])
    read: dict[str | None, list[str] | None] = {None: None}
    for text in column.unique().to_pylist():
        if text is not None and (labels := _written_list(text)) is None:
            labels = [part.strip() for part in (text.split(separator) if separator else [text])]
        read[text] = None if text is None else [label for label in labels or [] if label]
    return pa.chunked_array([pa.array([read[text] for text in column.to_pylist()], pa.list_(pa.string()))])
