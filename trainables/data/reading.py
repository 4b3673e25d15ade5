"""What a reader of files is told and what it gives back, whatever the format."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import pyarrow as pa

LINE = "#line"  # the column of a table that says where in its file each row begins, counted from 1

Quoting = Literal["standard", "backslash", "none"]
SKIP = '"skip_bad_rows": true in task.json'


@dataclass(frozen=True, kw_only=True)
class Format:
    """How the files of a task folder are to be read; None is left to be found."""

    delimiter: str | None = None
    encoding: str | None = None
    quoting: Quoting | None = None
    header: tuple[str, ...] | None = None  # the names of the columns where no line of the file holds them
    # text_a, text_b, label -> the files' column; label -> a list of columns that are a label each
    columns: Mapping[str, str | list[str]] | None = None
    skip_bad_rows: bool = False
    may_be_several: bool = False  # whether a row is known to have any number of labels


@dataclass(frozen=True, kw_only=True)
class Rows:
    """The rows of a file, and everything to be said about reading them."""

    table: pa.Table  # the columns text_a, text_b and label that the file has, and `LINE` where it is made of lines
    names: Sequence[str] = ()  # all columns of the file
    faults: Sequence[str] = ()
    notes: Sequence[str] = ()  # what was found or decided, each a sentence to be shown
    skipped: int = 0  # rows left out because of what is wrong with them, as was asked for
    class_names: Sequence[str] = ()  # of the labels 0, 1, ..., where the file knows them
    format: Mapping[str, Any] = field(default_factory=dict)  # as in `trainables.task.Reading`
    hint: str = ""  # the `columns` to declare where none has a name that says what it is


def at_lines(numbers: Sequence[int], what: str = "line", at_most: int = 5) -> str:
    """Lines (or rows) as faults name them: "line 4", "3 lines (4, 7, 9)"."""
    if len(numbers) == 1:
        return f"{what} {numbers[0]}"
    listed = ", ".join(map(str, numbers[:at_most])) + (", ..." if len(numbers) > at_most else "")
    return f"{len(numbers):,} {what}s ({listed})"
