"""Labels as they come (numbers, names, numbers written as text) made into what a training takes."""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Mapping, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from trainables.data.reading import SKIP
from trainables.faults import unknown_name
from trainables.metrics import TaskKind

PLAIN = "write decimals with a point, and no signs of thousands, percent or currency"
SEVERAL = '"kind": "multilabel" in task.json'
_MANY = 50  # whole numbers that are not 0..n-1: beyond it they may be scores


_LEADING_ZERO = r"^[+-]?0[0-9]+$"
_NUMBER = r"^[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?$"
_WITH_COMMAS = r"^[+-]?[0-9]+(,[0-9]+)*$"
# Numbers as people and spreadsheets write them: "1,000.5", "12.5%", "$3.50", a minus that is no hyphen.
_SIGN, _UNIT = r"[+\x{2212}\x{2013}-]", r"[$\x{20ac}\x{a3}\x{a5}%\x{2030}]"
_DIGITS = r"(?:[0-9]{1,3}(?:[, '\x{a0}\x{202f}][0-9]{3})+(?:[.][0-9]+)?|[0-9]+(?:[.,][0-9]+)?)"
_WRITTEN_NUMBER = f"^{_SIGN}?{_UNIT}? ?{_DIGITS} ?{_UNIT}?$"
_HEXADECIMAL = r"^[+-]?0[xX]"
# What stands for a label that is not given away.
_NO_LABELS = (
    *("?", "-", "--", "na", "n/a", "#n/a", "nan", "null", "none", "\\n"),
    *("unknown", "unlabeled", "unlabelled", "hidden"),
)


def parse(column: pa.ChunkedArray) -> pa.Array:
    """A label column as int64, float64 or string, its nulls kept: whatever the format, the same labels are the same.

    Truth values are the names `True` and `False`, an empty text is a null. Raises `ValueError` saying what came where
    a label is neither a number nor a text.
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
    if pa.types.is_boolean(labels.type):
        return pc.if_else(labels, "True", "False")
    labels = as_text(labels)
    if not is_text(labels.type):
        several = f" (several labels a text are of {SEVERAL})" if pa.types.is_list(labels.type) else ""
        raise ValueError(f"label: must be whole numbers, numbers or names, but is {labels.type}{several}")
    labels = labels.cast(pa.string())
    return pc.if_else(pc.equal(labels, ""), pa.scalar(None, pa.string()), labels)


def read_numbers(labels: Mapping[str, pa.Array], names: Sequence[str], *, scores: bool) -> dict[str, pa.Array]:
    """The labels of all splits, those of a split that are numbers written as text made numbers, as in a csv file.

    They stay names where all of them are among the declared `names`, and where one of any split has a leading zero
    ("007"), unless they are `scores`. Blanks around a number do not count.
    """
    texts = {split: values for split, values in labels.items() if pa.types.is_string(values.type)}
    if any(pc.any(pc.match_substring_regex(values, _HEXADECIMAL)).as_py() for values in texts.values()):
        return dict(labels)
    if not scores and any(pc.any(pc.match_substring_regex(values, _LEADING_ZERO)).as_py() for values in texts.values()):
        return dict(labels)
    return {**labels, **{split: _number(values, names) for split, values in texts.items()}}


def without_blanks(labels: Mapping[str, pa.Array], names: Sequence[str]) -> dict[str, pa.Array]:
    """The labels of all splits, names without the blanks around them, where no two names are one without.

    Where some are, as " pos" and "pos", all stay as they are: which is meant is for a warning to ask. So do names that
    are declared in `names`.
    """
    texts = {split: values for split, values in labels.items() if pa.types.is_string(values.type)}
    written = {name for values in texts.values() for name in pc.unique(values.drop_null()).to_pylist()}
    bare = {name.strip() for name in written}
    if bare == written or len(bare) < len(written) or not written.isdisjoint(names) or "" in bare:
        return dict(labels)
    return {**labels, **{split: pc.utf8_trim_whitespace(values) for split, values in texts.items()}}


def read_names(
    labels: Mapping[str, pa.Array], names: Sequence[str], *, keys: Sequence[int] = (), always: bool = False
) -> dict[str, pa.Array]:
    """The labels of all splits, whole numbers made names.

    With `keys` a number becomes the name of the same place. Without, it becomes a name by being written out: `always`,
    or only where every number of every split is then one of the `names`.
    """
    whole = {
        split: values for split, values in labels.items() if not pa.types.is_string(values.type) and _whole(values)
    }
    written = {split: values.cast(pa.int64()).cast(pa.string()) for split, values in whole.items()}
    if keys:
        at = pa.array(map(str, keys), pa.string())
        called = pa.array(names, pa.string())
        named = {split: pc.coalesce(called.take(pc.index_in(values, at)), values) for split, values in written.items()}
        return {**labels, **named}
    known = pa.array(names, pa.string())
    if always or all(pc.all(pc.is_in(values.drop_null(), known)).as_py() is not False for values in written.values()):
        return {**labels, **written}
    return dict(labels)


def _number(labels: pa.Array, names: Sequence[str]) -> pa.Array:
    if names and pc.all(pc.is_in(labels.drop_null(), pa.array(names, pa.string()))).as_py():
        return labels
    bare = pc.utf8_trim_whitespace(labels)
    for number in (pa.int64(), pa.float64()):
        try:
            return bare.cast(number)
        except pa.ArrowInvalid:
            continue
    return labels


def are_scores(labels: pa.Array) -> bool:
    """Whether a column is one of numbers that are not whole, though some of its labels may be none."""
    if pa.types.is_string(labels.type):
        numbers = pc.match_substring_regex(pc.utf8_trim_whitespace(labels.drop_null()), _NUMBER)
        points = pc.and_(numbers, pc.match_substring(labels.drop_null(), "."))
        return bool(pc.any(points).as_py()) and 2 * pc.sum(numbers).as_py() > len(numbers)
    return pa.types.is_floating(labels.type) and not _whole(labels.filter(pc.is_finite(labels)))


def are_no_numbers(labels: pa.Array, *, scores: bool) -> pa.Array:
    """Which labels of a column of numbers are none that anything can be trained on: infinite, or a text.

    Texts are told from numbers among `scores` alone, for elsewhere they are names; and where most are texts, it is no
    column of numbers. One that people would read as a number ("1,000", "12%") is not marked, for it only has to be
    written otherwise.
    """
    if pa.types.is_floating(labels.type):
        return pc.fill_null(pc.invert(pc.is_finite(labels)), False)
    if not scores or not pa.types.is_string(labels.type):
        return pa.array(np.zeros(len(labels), bool))
    bare = pc.utf8_trim_whitespace(labels)
    finite = pa.array([_is_finite(text) for text in bare.to_pylist()], pa.bool_())
    written = pc.and_(
        pc.match_substring_regex(bare, _WRITTEN_NUMBER), pc.invert(pc.match_substring_regex(bare, _NUMBER))
    )
    odd = pc.fill_null(pc.invert(pc.or_(finite, written)), False)
    is_another_column = 2 * (pc.sum(odd).as_py() or 0) > len(labels) - labels.null_count
    return pc.and_(odd, not is_another_column)


def _is_finite(text: str | None) -> bool:
    """Whether a text is a number as files write them; an infinite one is none."""
    return text is not None and re.match(_NUMBER, text) is not None and math.isfinite(float(text))


def strange_names(labels: pa.Array, lines: pa.Array | None = None) -> str | None:
    """The fault of names that must be something else: scores with a stray word, decimal commas, lists of labels."""
    if not pa.types.is_string(labels.type):
        return None
    values = labels.drop_null()
    numbers = pc.match_substring_regex(values, _NUMBER)
    count = pc.sum(numbers).as_py() or 0
    written = pc.or_(pc.match_substring_regex(values, _WRITTEN_NUMBER), numbers)
    if pc.any(pc.match_substring_regex(values, "[0-9][.][0-9]")).as_py() and pc.all(written).as_py():
        odd = pc.invert(pc.fill_null(pc.match_substring_regex(labels, _NUMBER), True))
        came = _some([repr(value) for value in pc.unique(labels.filter(odd)).to_pylist()], 3)
        return (
            f"labels are numbers, but not all are written as such ({came} in {where(odd, lines)}): {PLAIN}; or say "
            f'"kind": "classification" in task.json if all labels are names'
        )
    with_point = pc.any(pc.and_(numbers, pc.match_substring(values, "."))).as_py()
    if with_point and 2 * count > len(values):
        stray = pc.invert(pc.fill_null(pc.match_substring_regex(labels, _NUMBER), True))
        came = _some([repr(value) for value in pc.unique(labels.filter(stray)).to_pylist()])
        return (
            f"labels are numbers that are not whole, but {came} in {where(stray, lines)}. Mend or take out these "
            f'rows, or leave them out by {SKIP}; or say "kind": "classification" in task.json if all labels are names'
        )
    commas = pc.match_substring(values, ",")
    if pc.any(commas).as_py() and pc.all(pc.match_substring_regex(values, _WITH_COMMAS)).as_py():
        came = _some([repr(value) for value in pc.unique(values.filter(commas)).to_pylist()], 3)
        return (
            f"labels hold numbers with commas ({came}): {PLAIN}. Where these are several labels a "
            f'text, say {SEVERAL} and "label_separator": ","; where they are names, "kind": "classification"'
        )
    return None


def hidden(labels: pa.Array, known: pa.Array | None = None) -> bool:
    """Whether a split gives no labels away, as the test splits of GLUE: every label null, or -1 or a word such as "?"
    where none of the `known` ones of train is."""
    if labels.null_count == len(labels):
        return True
    if pa.types.is_string(labels.type):
        if known is None or not pa.types.is_string(known.type):
            known = pa.array([], pa.string())
        written = pc.unique(labels.drop_null())
        is_word = written.to_pylist()[0].strip().lower() in _NO_LABELS
        return len(written) == 1 and is_word and not pc.any(pc.is_in(known, written)).as_py()
    if pa.types.is_floating(labels.type) and pc.all(pc.is_nan(labels)).as_py():  # the word nan, read as a number
        return True
    if known is not None and not pa.types.is_string(known.type) and pc.any(pc.equal(known, -1)).as_py():
        return False
    return pc.all(pc.equal(labels.drop_null(), -1)).as_py() is not False


def infer_kind(labels: pa.Array) -> TaskKind:
    """Regression where a label is a number that is not whole, else classification."""
    return "regression" if pa.types.is_floating(labels.type) and not _whole(labels) else "classification"


def infer_classes(labels: pa.Array, *, declared: bool = False) -> tuple[int, tuple[str, ...]] | str:
    """Number and names of the classes of a train split, or the fault of its labels.

    Numbers from 0 without a gap are numbered classes and have no names; any other whole numbers are names, in the
    order of numbers. Very many of those are refused unless a classification was `declared`.
    """
    values = pc.unique(labels.drop_null()).sort()
    if pa.types.is_string(labels.type):
        return len(values), tuple(values.to_pylist())
    if fault := _not_whole(labels):
        return f"train: {fault}"
    classes = [int(value) for value in values.to_pylist()]
    if not classes:
        return 0, ()
    if classes[0] < 0 or len(classes) != classes[-1] + 1:
        if not declared and len(classes) > _MANY and 2 * len(classes) > len(labels):
            return (
                f"train: labels are {len(classes):,} different whole numbers in {len(labels):,} rows "
                f'({_some(classes)}). Say in task.json "kind": "regression" if these are scores, or "classification"'
            )
        return len(classes), tuple(map(str, classes))
    return len(classes), ()


def to_classes(
    labels: pa.Array, num_labels: int, names: Sequence[str], lines: pa.Array | None = None
) -> tuple[pa.Array, list[str]]:
    """Class indices (int64) and the faults of those that are none; nulls are left for others to report."""
    if pa.types.is_string(labels.type):
        indices = pc.index_in(labels, pa.array(names, pa.string()))
        strange = labels.filter(pc.and_(pc.is_null(indices), pc.is_valid(labels)))
        unknown = pc.unique(strange).sort().to_pylist()
        if len(unknown) > 5 and 2 * len(strange) > len(labels):
            return indices.cast(pa.int64()), [
                f"{len(strange):,} of {len(labels):,} rows have a label that none of the {len(names):,} known is, such "
                f"as {_some([repr(name) for name in unknown], 3)} (is this the right column?)"
            ]
        faults = [
            f"{_unknown(name, names or ('none, since label_names are not declared',))} "
            f"({where(pc.equal(labels, name), lines)})"
            for name in unknown[:5]
        ]
        if len(unknown) > 5:
            faults.append(f"{len(unknown) - 5:,} more unknown labels")
        return indices.cast(pa.int64()), faults
    if pa.types.is_floating(labels.type):
        if fault := _not_whole(labels, lines):
            return labels, [fault]
        labels = labels.cast(pa.int64())
    outside = pc.or_(pc.less(labels, 0), pc.greater_equal(labels, num_labels))
    if not pc.any(outside).as_py():
        return labels, []
    values = pc.unique(labels.filter(outside)).sort().to_pylist()
    fault = f"labels must be in 0..{num_labels - 1}, but got {_some(values)} in {where(outside, lines)}"
    if names:
        fault += ". label_names are those of 0, 1, ... in order; as an object, they say which label each is for: "
        fault += f'{{"{values[0]}": "{names[-1]}", ...}}'
    return labels, [fault]


def to_scores(labels: pa.Array, lines: pa.Array | None = None) -> tuple[pa.Array, list[str]]:
    """Regression targets (float64) and the faults of those that are no finite number."""
    if pa.types.is_string(labels.type):
        stray = labels.filter(pc.invert(pc.fill_null(pc.match_substring_regex(labels, _NUMBER), True)))
        where_from = [repr(value) for value in pc.unique(stray).to_pylist()]
        return labels, [f"labels of a regression must be numbers, but got {_some(where_from)}: {PLAIN}"]
    labels = labels.cast(pa.float64())
    infinite = pc.invert(pc.is_finite(labels))
    return labels, [f"labels must be finite, but {where(infinite, lines)} are not"] if pc.any(infinite).as_py() else []


def where(mask: pa.Array | pa.ChunkedArray, lines: pa.Array | None = None) -> str:
    """How many rows a mask marks and the first of them: "2 rows (lines 5, 18)" where they have lines in a file.

    Rows that have none are counted from 1, without a header: "2 rows (4, 17)".
    """
    marked = np.flatnonzero(pc.fill_null(mask, False).to_numpy(zero_copy_only=False))
    plural = "s" if len(marked) != 1 else ""
    if lines is None:
        return f"{len(marked)} row{plural} ({_some((marked + 1).tolist())})"
    return f"{len(marked)} row{plural} (line{plural} {_some(lines.take(pa.array(marked)).to_pylist())})"


def _unknown(name: str, names: Sequence[str], at_most: int = 20) -> str:
    """As `unknown_name`, with no more than some of very many names."""
    if len(names) <= at_most:
        return unknown_name("label", name, names)
    near = difflib.get_close_matches(name, names, n=1)
    hint = f"; did you mean {near[0]!r}?" if near else "."
    return f"unknown label {name!r}{hint} Known: {_some(sorted(names), at_most)} ({len(names):,} in all)"


def _some(values: Sequence[object], at_most: int = 5) -> str:
    return ", ".join(str(value) for value in values[:at_most]) + (", ..." if len(values) > at_most else "")


def is_text(kind: pa.DataType) -> bool:
    return pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)


def as_text(column: pa.Array | pa.ChunkedArray) -> pa.Array | pa.ChunkedArray:
    """Bytes as the text they are in UTF-8, as older writers of Parquet leave it; anything else as it is."""
    kind = column.type
    if (
        pa.types.is_fixed_size_binary(kind)
        or pa.types.is_binary(kind)
        or pa.types.is_large_binary(kind)
        or pa.types.is_binary_view(kind)
    ):
        try:
            return column.cast(pa.binary()).cast(pa.string())
        except pa.ArrowInvalid:
            return column
    return column


def _not_whole(labels: pa.Array, lines: pa.Array | None = None) -> str | None:
    if not pa.types.is_floating(labels.type) or _whole(labels):
        return None
    odd = pc.or_(pc.invert(pc.is_finite(labels)), pc.not_equal(labels, pc.floor(labels)))
    return f"labels of a classification must be whole, but {where(odd, lines)} are not"


def _whole(labels: pa.Array) -> bool:
    if not pa.types.is_floating(labels.type):
        return True
    values = labels.drop_null()
    return bool(pc.all(pc.and_(pc.is_finite(values), pc.equal(values, pc.floor(values)))).as_py() is not False)
