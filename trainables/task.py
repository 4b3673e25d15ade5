"""What a task is, whatever family it comes from: its facts, its rows and the fingerprint of both."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from trainables.metrics import TaskKind

SPLITS = ("train", "validation", "test")
FURTHER_SPLIT = re.compile(r"(validation|test)_\w+")  # rows that only the final model is evaluated on


@dataclass(frozen=True, kw_only=True)
class TaskInfo:
    """The facts of a task that a head and a report need; known without reading the rows where a family can."""

    name: str
    kind: TaskKind
    pair: bool  # whether each row has two texts
    num_labels: int  # outputs of the head; 1 for regression, 2 (start and end, of every word piece) for extractive_qa
    label_names: tuple[str, ...]  # by label index; empty where they are not known, and where labels are no classes
    metric: str  # a name of trainables.metrics
    source: str  # where the rows come from, revision included where there is one


@dataclass(frozen=True, kw_only=True)
class Reading:
    """How the rows of a split were read from its files."""

    split: str
    files: tuple[str, ...]  # relative to the folder
    columns: tuple[str, ...]  # all that the files have
    rows: int  # that were read, before any was cut off for another split
    skipped: int = 0  # rows left out because of what is wrong with them, as was asked for
    # Keys of task.json and the values that would read them so: delimiter, encoding, quoting, columns; those that apply.
    format: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True, eq=False)
class Task:
    """A task whose every row has been checked.

    `splits` has train, validation and, where it is labelled, test; then any further labelled rows to evaluate a final
    model on, as `validation_<name>` and `test_<name>` (MNLI: `validation_mismatched`). Columns: text_a (string),
    text_b (string, only where `info.pair`), label (int64 in [0, num_labels) for classification, finite float64 for
    regression, a fixed-size list of num_labels truth values for multilabel). Extractive question answering has no label
    but id (string), text_a the question, text_b the context and answers (a list of text and start, the place of its
    first character in the context).
    """

    info: TaskInfo
    splits: Mapping[str, pa.Table]
    fingerprint: str  # sha256 of what a training can see; equal for equal rows, however they are stored
    notes: tuple[str, ...] = ()  # what was decided or left out while reading: a sentence each, for people to check
    readings: tuple[Reading, ...] = ()  # of a task folder, a split each
    silence: tuple[str, ...] = ()  # names of warnings that nobody needs to hear, as the task itself says
    folds: int | None = (
        None  # how many its rows are to be cut into (`trainables.data.folding`), as the task itself says
    )


def in_order(splits: Iterable[str]) -> list[str]:
    """Splits in the order a task has them: train, validation, test, then the further ones by name."""
    return sorted(splits, key=lambda split: (SPLITS.index(split) if split in SPLITS else len(SPLITS), split))


def fingerprint(info: TaskInfo, splits: Mapping[str, pa.Table]) -> str:
    """The sha256 (hex) of a task's content: kind, metric, number of labels, and every row of every split in order.

    Names, sources and file formats are left out, so a copy of the same rows is the same task.
    """
    digest = hashlib.sha256()
    header = {"kind": info.kind, "metric": info.metric, "num_labels": info.num_labels}
    digest.update(json.dumps(header, sort_keys=True).encode())
    for split in in_order(splits):
        table = splits[split]
        for name in ("text_a", "text_b", "label", "answers"):
            if name not in table.column_names:
                continue
            digest.update(f"\n{split}.{name}[{table.num_rows}]\n".encode())
            for part in _column_bytes(table.column(name).combine_chunks()):
                digest.update(part)
    return digest.hexdigest()


def _column_bytes(column: pa.Array) -> Iterator[bytes | memoryview]:
    """The values of a column of numbers, texts, truth values or lists of structs, the same for equal values only."""
    if pa.types.is_fixed_size_list(column.type):
        yield np.packbits(column.flatten().to_numpy(zero_copy_only=False)).tobytes()
    elif pa.types.is_list(column.type):
        yield from _column_bytes(pc.list_value_length(column))
        answers = column.flatten()
        for field in answers.type:
            yield from _column_bytes(pc.struct_field(answers, field.name))
    elif pa.types.is_string(column.type):
        # Lengths first: without them "ab","c" and "a","bc" would be one text.
        yield pc.binary_length(column).to_numpy(zero_copy_only=False).astype("<i8").tobytes()
        yield _text_bytes(column.cast(pa.large_string()))
    else:
        # Adding 0 makes -0.0 and 0.0 one value; both are stored little-endian on every platform we know.
        yield np.ascontiguousarray(column.to_numpy(zero_copy_only=False) + 0).astype("<f8").tobytes()


def _text_bytes(column: pa.LargeStringArray) -> memoryview:
    """The UTF-8 of all texts of a column (without nulls), one after the other, without a copy."""
    _, offsets, data = column.buffers()
    bounds = np.frombuffer(offsets, np.int64)[column.offset : column.offset + len(column) + 1]
    return memoryview(data)[bounds[0] : bounds[-1]] if data is not None else memoryview(b"")
