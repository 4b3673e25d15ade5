"""What a trained model predicts of each row of a split, as small as it can be kept. Needs no torch.

Suffixes: N rows of a split, C classes of a task.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from trainables.metrics import TaskKind

# Of so many classes the scores of all are kept, which are no more bytes than the best five with their classes.
FEW_CLASSES = 10
BEST_KEPT = 5
MOST_LABELS = 100  # of a task where a row may have several, up to which the scores of all are kept, and else none
_LOWEST = float(np.finfo(np.float16).min)


@dataclass(frozen=True, kw_only=True, eq=False)
class SplitRows:
    """Which rows a split has, so that predictions of it are never taken for predictions of others."""

    id: str  # equal for the same texts with the same labels in the same order
    hashes: np.ndarray  # uint64 (N,), of the texts of each row: see `row_hash`
    #: (N,): classes, numbers, or the texts that count as right; (N, C), true where a row has one of several labels
    labels: tuple[tuple[str, ...], ...] | np.ndarray

    def __len__(self) -> int:
        return len(self.hashes)


@dataclass(frozen=True, kw_only=True, eq=False)
class Predictions:
    """What a trained model predicts of every row of a split.

    `scores` are natural logarithms of probabilities, by the softmax of the model's outputs: unlike the outputs
    themselves they mean the same for every trial, and five of them are worth something without the others. Where a row
    may have several labels each label's is by the sigmoid of its output.
    """

    kind: TaskKind
    rows: SplitRows
    #: (N,): int32 classes, picked before anything is rounded; float32 numbers of a regression; texts of answers. Or
    #: (N, C), true for each of several labels that is predicted.
    values: np.ndarray | tuple[str, ...]
    #: float16 (N, C), or (N, 5) of the best; None unless the task has classes, or labels that are not very many
    scores: np.ndarray | None = None
    classes: np.ndarray | None = None  #: int32 (N, 5): whose scores these are, best first; None: of all in order


def row_hash(*texts: str) -> str:
    """16 hexadecimal digits that stand for the texts of a row, one or a pair.

    They are the first of the SHA-256 of the JSON list of the texts, as Python's `json.dumps` writes it.
    """
    return hashlib.sha256(json.dumps(texts).encode()).hexdigest()[:16]


def rows_of(table: pa.Table, kind: TaskKind) -> SplitRows:
    """The rows of a split of a `trainables.task.Task`."""
    texts = [table.column(name).to_pylist() for name in ("text_a", "text_b") if name in table.column_names]
    hashes = np.array([int(row_hash(*row), 16) for row in zip(*texts, strict=True)], np.uint64)
    digest = hashlib.sha256(f"{kind}\n".encode() + hashes.astype(">u8").tobytes())
    labels: tuple[tuple[str, ...], ...] | np.ndarray
    if kind == "extractive_qa":
        answers = table.column("answers").to_pylist()
        labels = tuple(tuple(answer["text"] for answer in row) for row in answers)
        digest.update(json.dumps(labels).encode())
    else:
        labels = label_values(table.column("label").combine_chunks())
        if kind == "multilabel":
            digest.update(f"{labels.shape[1]}\n".encode() + np.packbits(labels).tobytes())
        else:
            digest.update((labels + 0).astype("<f8").tobytes())  # adding 0 makes -0.0 and 0.0 one value
    return SplitRows(id=digest.hexdigest()[:32], hashes=hashes, labels=labels)


def label_values(column: pa.Array) -> np.ndarray:
    """A column of labels as numbers (N,), or (N, C) where each row has a list of so many."""
    if pa.types.is_fixed_size_list(column.type):
        values: np.ndarray = column.flatten().to_numpy(zero_copy_only=False)
        return values.reshape(len(column), column.type.list_size)
    return np.asarray(column.to_numpy(zero_copy_only=False))


def predictions_from(
    outputs: np.ndarray, values: np.ndarray | Sequence[str], rows: SplitRows, kind: TaskKind
) -> Predictions:
    """What to keep of a model's outputs and of what was picked from them.

    `outputs` are (N, C) where rows have classes or labels, and not looked at otherwise. Scores below what half
    precision holds are its lowest number.
    """
    if kind == "extractive_qa":
        return Predictions(kind=kind, rows=rows, values=tuple(values))
    if kind == "regression":
        return Predictions(kind=kind, rows=rows, values=np.array(values, np.float32))
    if kind == "multilabel":
        logs_NC = -np.logaddexp(0, -outputs.astype(np.float64))
        kept = np.maximum(logs_NC, _LOWEST).astype(np.float16) if outputs.shape[1] <= MOST_LABELS else None
        return Predictions(kind=kind, rows=rows, values=np.asarray(values, bool), scores=kept)
    shifted_NC = outputs.astype(np.float64) - outputs.max(axis=1, keepdims=True)
    scores_NC = shifted_NC - np.log(np.exp(shifted_NC).sum(axis=1, keepdims=True))
    classes = None
    if outputs.shape[1] > FEW_CLASSES:
        # Of equal ones the first, as where the predicted class is picked.
        classes = np.argsort(-outputs, axis=1, kind="stable")[:, :BEST_KEPT].astype(np.int32)
        scores_NC = np.take_along_axis(scores_NC, classes, axis=1)
    return Predictions(
        kind=kind,
        rows=rows,
        values=np.asarray(values, np.int32),
        scores=np.maximum(scores_NC, _LOWEST).astype(np.float16),
        classes=classes,
    )


def predictions_table(predictions: Mapping[str, Predictions]) -> pa.Table:
    """Predictions of one trial's splits, a row per row: split, row, row_hash, label, prediction, scores, classes."""
    tables = []
    for split, found in predictions.items():
        count = len(found.rows)
        columns = {
            "split": pa.array([split] * count, pa.string()),
            "row": pa.array(np.arange(count)),
            "row_hash": hash_texts(found.rows.hashes),
            "label": label_array(found.rows, found.kind),
            "prediction": value_array(found.values, found.kind),
            "scores": lists(found.scores, pa.float16(), count),
            "classes": lists(found.classes, pa.int32(), count),
        }
        tables.append(pa.table(columns))
    return pa.concat_tables(tables)


# Of a prediction, by kind of task.
VALUE_TYPES: Mapping[TaskKind, pa.DataType] = {
    "classification": pa.int64(),
    "regression": pa.float64(),
    "extractive_qa": pa.string(),
    "multilabel": pa.list_(pa.int64()),  # the labels that a row has, in ascending order
}


def hash_texts(hashes: np.ndarray) -> pa.Array:
    """Hashes of rows as `row_hash` writes them."""
    return pa.array([f"{number:016x}" for number in hashes.tolist()], pa.string())


def label_array(rows: SplitRows, kind: TaskKind) -> pa.Array:
    """The true labels: int64 classes, float64 numbers, lists of int64 labels or of the texts that count as right."""
    if kind == "extractive_qa":
        return pa.array([list(texts) for texts in rows.labels], pa.list_(pa.string()))
    return value_array(rows.labels, kind)


def value_array(values: np.ndarray | Sequence[Any], kind: TaskKind) -> pa.Array:
    """Predictions, or labels of the same form, as a column of the type that `VALUE_TYPES` has for them."""
    if kind != "multilabel":
        return pa.array(values).cast(VALUE_TYPES[kind])
    matrix_NC = np.asarray(values, bool)
    offsets = np.concatenate([[0], np.cumsum(matrix_NC.sum(axis=1))]).astype(np.int32)
    return pa.ListArray.from_arrays(pa.array(offsets), pa.array(np.nonzero(matrix_NC)[1].astype(np.int64)))


def lists(values: np.ndarray | None, kind: pa.DataType, count: int) -> pa.Array:
    """A matrix as a column of `count` lists, null throughout where there is none."""
    if values is None:
        return pa.nulls(count, pa.list_(kind))
    offsets = np.arange(0, values.size + 1, values.shape[1], dtype=np.int32)
    return pa.ListArray.from_arrays(pa.array(offsets), pa.array(np.ascontiguousarray(values).reshape(-1), kind))
