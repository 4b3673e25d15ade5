"""Labels as they come (numbers, names, numbers written as text) made into what a training takes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from trainables.faults import unknown_name
from trainables.metrics import TaskKind


def parse(column: pa.ChunkedArray, names: Sequence[str] = ()) -> pa.Array:
    """A label column as int64, float64 or string, its nulls kept.

    Text that is all numbers is numbers, as in a csv file, unless every value is among the declared `names`.
    Raises `ValueError` saying what came where a label is neither a number nor a text.
    """
    labels = column.combine_chunks()
    if isinstance(labels, pa.ChunkedArray):  # a column without rows keeps its chunks in some versions
        labels = pa.concat_arrays(labels.chunks) if labels.num_chunks else pa.nulls(0)
    if pa.types.is_dictionary(labels.type):
        labels = labels.dictionary_decode()
    if pa.types.is_null(labels.type) or pa.types.is_integer(labels.type):
        try:
            return labels.cast(pa.int64())
        except pa.ArrowInvalid as fault:
            raise ValueError(f"label: must be whole numbers of 64 bits, but {fault}") from None
    if pa.types.is_floating(labels.type) or pa.types.is_decimal(labels.type):
        return labels.cast(pa.float64())
    if not is_text(labels.type):
        raise ValueError(f"label: must be whole numbers, numbers or names, but is {labels.type}")
    labels = labels.cast(pa.string())
    labels = pc.if_else(pc.equal(labels, ""), pa.scalar(None, pa.string()), labels)
    if names and pc.all(pc.is_in(labels.drop_null(), pa.array(names, pa.string()))).as_py():
        return labels
    for number in (pa.int64(), pa.float64()):
        try:
            return labels.cast(number)
        except pa.ArrowInvalid:
            continue
    return labels


def hidden(labels: pa.Array) -> bool:
    """Whether a split gives no labels away, as the test splits of GLUE: every label null or -1."""
    if pa.types.is_string(labels.type):
        return labels.null_count == len(labels)
    return bool(pc.all(pc.equal(labels.drop_null(), -1)).as_py() is not False)


def infer_kind(labels: pa.Array) -> TaskKind:
    """Regression where a label is a number that is not whole, else classification."""
    return "regression" if pa.types.is_floating(labels.type) and not _whole(labels) else "classification"


def infer_classes(labels: pa.Array) -> tuple[int, tuple[str, ...]] | str:
    """Number and names (empty for numbered classes) of the classes of a train split, or the fault of its labels."""
    values = pc.unique(labels.drop_null()).sort()
    if pa.types.is_string(labels.type):
        return len(values), tuple(values.to_pylist())
    if fault := _not_whole(labels):
        return f"train: {fault}"
    classes = [int(value) for value in values.to_pylist()]
    if not classes:
        return 0, ()
    if classes[0] < 0 or len(classes) != classes[-1] + 1:
        return (
            f"train: labels must be 0..n-1 with every class present where num_labels is not declared in task.json, "
            f"but got {_some(classes)}"
        )
    return len(classes), ()


def to_classes(labels: pa.Array, num_labels: int, names: Sequence[str]) -> tuple[pa.Array, list[str]]:
    """Class indices (int64) and the faults of those that are none; nulls are left for others to report."""
    if pa.types.is_string(labels.type):
        indices = pc.index_in(labels, pa.array(names, pa.string()))
        strange = labels.filter(pc.and_(pc.is_null(indices), pc.is_valid(labels)))
        faults = [
            f"{unknown_name('label', name, names or ('none, since label_names are not declared',))} "
            f"({where(pc.equal(labels, name))})"
            for name in pc.unique(strange).sort().to_pylist()[:5]
        ]
        return indices.cast(pa.int64()), faults
    if pa.types.is_floating(labels.type):
        if fault := _not_whole(labels):
            return labels, [fault]
        labels = labels.cast(pa.int64())
    outside = pc.or_(pc.less(labels, 0), pc.greater_equal(labels, num_labels))
    if not pc.any(outside).as_py():
        return labels, []
    values = pc.unique(labels.filter(outside)).sort().to_pylist()
    return labels, [f"labels must be in 0..{num_labels - 1}, but got {_some(values)} in {where(outside)}"]


def to_scores(labels: pa.Array) -> tuple[pa.Array, list[str]]:
    """Regression targets (float64) and the faults of those that are no finite number."""
    if pa.types.is_string(labels.type):
        return labels, [f"labels of a regression must be numbers, but got {_some(pc.unique(labels).to_pylist())}"]
    labels = labels.cast(pa.float64())
    infinite = pc.invert(pc.is_finite(labels))
    return labels, [f"labels must be finite, but {where(infinite)} are not"] if pc.any(infinite).as_py() else []


def where(mask: pa.Array | pa.ChunkedArray) -> str:
    """How many rows a mask marks and the first of them, counted from 1 without a header: "2 rows (4, 17)"."""
    rows = np.flatnonzero(pc.fill_null(mask, False).to_numpy(zero_copy_only=False)) + 1
    return f"{len(rows)} row{'s' if len(rows) != 1 else ''} ({_some(rows.tolist())})"


def _some(values: Sequence[object], at_most: int = 5) -> str:
    return ", ".join(str(value) for value in values[:at_most]) + (", ..." if len(values) > at_most else "")


def is_text(kind: pa.DataType) -> bool:
    return pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)


def _not_whole(labels: pa.Array) -> str | None:
    if not pa.types.is_floating(labels.type) or _whole(labels):
        return None
    odd = pc.or_(pc.invert(pc.is_finite(labels)), pc.not_equal(labels, pc.floor(labels)))
    return f"labels of a classification must be whole, but {where(odd)} are not"


def _whole(labels: pa.Array) -> bool:
    values = labels.drop_null()
    return bool(pc.all(pc.and_(pc.is_finite(values), pc.equal(values, pc.floor(values)))).as_py() is not False)
