"""The rows of a delimited file under one dialect: sound ones, broken ones, and those that leave doubt."""

from __future__ import annotations

import csv
import re
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from trainables.data.columns import Columns
from trainables.data.reading import LINE, Quoting

_CHUNK = 20_000  # rows made into Arrow at a time
_NOTHING = " \t\r\n\v\f\0\x1a\u00a0"  # what a field may be of that holds nothing; DOS ends files with \x1a
_RULE = "-=:+"  # what a rule is made of
_FEW = 50  # labels, beyond which numbers are taken for scores


@dataclass(frozen=True, kw_only=True)
class Dialect:
    """How a line is cut into fields."""

    delimiter: str
    quoting: Quoting
    blank_after_delimiter: bool = False

    def options(self) -> dict[str, Any]:
        """The same as arguments of `csv.reader`."""
        shared = {"delimiter": self.delimiter, "skipinitialspace": self.blank_after_delimiter, "strict": True}
        if self.quoting == "none":
            return {**shared, "quoting": csv.QUOTE_NONE}
        if self.quoting == "backslash":
            return {**shared, "escapechar": "\\", "doublequote": False}
        return shared


@dataclass(kw_only=True)
class Bad:
    """A row that cannot be read."""

    line: int  # counted from 1
    columns: int
    text: str
    torn: bool  # whether a quotation mark is at fault


@dataclass(kw_only=True)
class Parsed:
    """The rows of a file under one dialect."""

    batches: list[list[pa.Array]] = field(default_factory=list)  # a chunk's wanted columns
    starts: list[np.ndarray] = field(default_factory=list)  # the line of each row, counted from 1
    bad: list[Bad] = field(default_factory=list)
    rescued: list[int] = field(default_factory=list)  # lines of rows with a mark that opens nothing
    several: list[tuple[int, int, int, int]] = field(default_factory=list)  # first and last line, and their fields
    doubtful: list[tuple[int, int]] = field(default_factory=list)  # first and last line
    empty: list[int] = field(default_factory=list)  # lines of rows whose every field is blank, which are not kept
    repeated: list[int] = field(default_factory=list)  # lines of rows that are the names of the columns, not kept

    @property
    def is_clean(self) -> bool:
        return not (self.bad or self.rescued or self.doubtful)

    def table(self, columns: Columns) -> pa.Table:
        names = list(columns.kept)
        chunks = [pa.chunked_array([batch[i] for batch in self.batches], pa.string()) for i in range(len(names))]
        lines = pa.chunked_array([pa.array(starts, pa.int64()) for starts in self.starts], pa.int64())
        return pa.table([*chunks, lines], names=[*names, LINE])


class Parser:
    """Cuts lines into rows under one dialect; `settled` where the user said which, and there is no doubt."""

    def __init__(
        self, lines: Sequence[str], dialect: Dialect, names: Sequence[str], columns: Columns, *, settled: bool
    ) -> None:
        self._lines, self._dialect, self._names, self._settled = lines, dialect, list(names), settled
        self._width = len(names)
        self._places = list(columns.kept.values())
        self._label = columns.places.get("label")
        self._label_at = self._places.index(self._label) if self._label is not None else None
        delimiter = re.escape(dialect.delimiter)
        self._quoted = re.compile(rf'"((?:[^"]|"")*)"(?={delimiter}|$)')
        self._plain = re.compile(f"[^{delimiter}]*")
        # The csv module is strict about doubled marks alone: with backslashes it lets a mark stand anywhere.
        escaped = rf'(?: *"[^"\\]*(?:\\.[^"\\]*)*"|[^"\\{delimiter}]*(?:\\.[^"\\{delimiter}]*)*)'
        self._escaped = re.compile(f"{escaped}(?:{delimiter}{escaped})*", re.DOTALL)
        self._parsed = Parsed()

    def parse(self, first: int) -> Parsed:
        """All rows from a place among the lines on."""
        place = first
        while place < len(self._lines):
            place = self._chunk(place)
        self._judge()
        self._parsed.empty.sort()
        self._parsed.repeated.sort()
        return self._parsed

    def _reader(self, place: int) -> Any:
        return csv.reader(map(self._lines.__getitem__, range(place, len(self._lines))), **self._dialect.options())

    def _chunk(self, place: int) -> int:
        """Reads up to `_CHUNK` rows from a place on; the place after them."""
        if self._dialect.quoting == "backslash":
            return self._slowly(place)
        reader = self._reader(place)
        try:
            rows = list(islice(reader, _CHUNK))
        except csv.Error:
            return self._slowly(place)
        if len(rows) == reader.line_num and set(map(len, rows)) == {self._width}:
            self._keep(rows, np.arange(place + 1, place + 1 + len(rows)))
            return place + reader.line_num
        return self._slowly(place) if rows else len(self._lines)

    def _slowly(self, place: int) -> int:
        """The same row by row, up to the first that is torn."""
        reader, before, torn = self._reader(place), 0, False
        rows: list[list[str]] = []
        starts: list[int] = []
        while len(rows) < _CHUNK:
            try:
                row = next(reader, None)
            except csv.Error:
                torn = True
                break
            if row is None:
                break
            line, span = place + before, reader.line_num - before
            if (len(row) != self._width and span > 1) or not self._is_strict(line, span):
                torn = True
                break
            before = reader.line_num
            if not row:
                continue
            if len(row) != self._width and _is_blank(row):
                self._parsed.empty.append(line + 1)
                continue
            if len(row) != self._width:
                self._parsed.bad.append(Bad(line=line + 1, columns=len(row), text=self._lines[line], torn=False))
                continue
            if span > 1:
                broken = [at for at, value in enumerate(row) if "\n" in value or "\r" in value]
                self._parsed.several.append((line + 1, line + span, broken[0], broken[-1]))
            rows.append(row)
            starts.append(line + 1)
        if torn:
            line = place + before
            row = self._alone(self._lines[line])
            if len(row) == self._width and self._dialect.quoting == "standard" and not self._settled:
                rows.append(row)
                starts.append(line + 1)
                self._parsed.rescued.append(line + 1)
            else:
                self._parsed.bad.append(Bad(line=line + 1, columns=len(row), text=self._lines[line], torn=True))
            before += 1
        self._keep(rows, np.array(starts, np.int64))
        return place + before if torn or len(rows) == _CHUNK else len(self._lines)

    def _is_strict(self, line: int, span: int) -> bool:
        if self._dialect.quoting != "backslash":
            return True
        record = "".join(self._lines[line : line + span]).rstrip("\r\n")
        return self._escaped.fullmatch(record) is not None

    def _keep(self, rows: list[list[str]], starts: np.ndarray) -> None:
        odd = [at for at, row in enumerate(rows) if not row[0].strip(_NOTHING + _RULE) or row == self._names]
        repeated = [at for at in odd if rows[at] == self._names]
        empty = [at for at in odd if _is_blank(rows[at])]
        if repeated or empty:
            self._parsed.repeated += starts[repeated].tolist()
            self._parsed.empty += starts[empty].tolist()
            kept = np.ones(len(rows), bool)
            kept[[*repeated, *empty]] = False
            rows, starts = [rows[at] for at in np.flatnonzero(kept)], starts[kept]
        self._parsed.batches.append([pa.array([row[place] for row in rows], pa.string()) for place in self._places])
        self._parsed.starts.append(starts)

    def _alone(self, line: str) -> list[str]:
        """The fields of one line, a mark taken for a character where it does not close before the next delimiter."""
        line, fields, place = line.rstrip("\r\n"), [], 0
        while True:
            if match := self._quoted.match(line, place):
                fields.append(match[1].replace('""', '"'))
            else:
                match = self._plain.match(line, place)
                assert match is not None  # it may be empty
                fields.append(match[0])
            place = match.end() + 1
            if place > len(line):
                return fields

    def _judge(self) -> None:
        """Which rows of torn marks count, and which of several lines leave doubt: by the labels of all the others."""
        parsed = self._parsed
        if not parsed.rescued and (self._settled or not parsed.several):
            return
        known = self._known_labels(np.array(parsed.rescued, np.int64))
        for line in parsed.rescued:
            row = self._alone(self._lines[line - 1])
            if not known(row):
                parsed.bad.append(Bad(line=line, columns=len(row), text=self._lines[line - 1], torn=True))
        torn = {bad.line for bad in parsed.bad if bad.torn}
        lost = np.array(sorted(torn), np.int64)
        parsed.rescued = [line for line in parsed.rescued if line not in torn]
        if not self._settled:
            parsed.doubtful = [span[:2] for span in parsed.several if self._is_doubtful(*span, known)]
        parsed.bad.sort(key=lambda bad: bad.line)
        if len(lost):
            for number, starts in enumerate(parsed.starts):
                kept = ~np.isin(starts, lost)
                parsed.starts[number] = starts[kept]
                parsed.batches[number] = [column.filter(pa.array(kept)) for column in parsed.batches[number]]

    def _is_doubtful(self, first: int, last: int, opens: int, closes: int, known: Any) -> bool:
        if self._label is None:
            return False
        if self._label in (opens, closes):
            return True  # a label of several lines is none
        split = [self._lines[line - 1].rstrip("\r\n").split(self._dialect.delimiter) for line in (first, last)]
        return (self._label > opens and known(split[0])) or (self._label < closes and known(split[1]))

    def _known_labels(self, odd: np.ndarray) -> Any:
        """Whether a row has all columns, and a label of a sound row (or a number, where those are scores)."""
        if self._label_at is None:
            return lambda row: False
        values: set[str] = set()
        for starts, batch in zip(self._parsed.starts, self._parsed.batches, strict=True):
            sound = batch[self._label_at].filter(pa.array(~np.isin(starts, odd)))
            values.update(pc.unique(sound).to_pylist())
        scores = len(values) > _FEW and all(map(is_number, values))
        width, label = self._width, self._label

        def known(row: list[str]) -> bool:
            assert label is not None
            return len(row) == width and (row[label] in values or (scores and is_number(row[label])))

        return known


def _is_blank(row: Sequence[str]) -> bool:
    """Whether a row holds nothing, or only the rule that tables written as text have below their header."""
    filled = [text for value in row if (text := value.strip(_NOTHING))]
    return all(len(text) > 2 and not text.strip(_RULE) for text in filled)


def is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


@contextmanager
def long_fields() -> Iterator[None]:
    """A text may have any length: the csv module's own limit is 131,072 characters."""
    before = csv.field_size_limit(sys.maxsize)
    try:
        yield
    finally:
        csv.field_size_limit(before)
