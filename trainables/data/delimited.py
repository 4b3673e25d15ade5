"""Comma-separated files and their kin, read so that no row is lost without a word.

Python's own csv module reads them, in its strict mode: of the parsers tried it is the one that refuses a quotation
mark where none may stand, and knows the line. What it refuses is read again by its line alone, with a mark that opens
nothing taken for a character; that row counts where it has all columns and a label that sound rows have too. A quoted
text of several lines whose first or last line would be a whole row by itself, known label included, leaves doubt and
is a fault. The same marks can be meant in two ways, so each fault says how to tell us: `quoting` of task.json.

`quoting` is "standard" (RFC 4180: marks doubled within marks, line breaks allowed), "backslash" (as MySQL and Spark
write: a mark within marks has a backslash before it) or "none" (a mark is a character like any other, as in GLUE).
"""

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

from trainables.data.columns import OURS, Columns, find_columns, suggestion
from trainables.data.reading import LINE, SKIP, Format, Quoting, Rows, at_lines

DELIMITERS = {",": "commas", "\t": "tabs", ";": "semicolons", "|": "vertical bars"}
_CHUNK = 20_000  # rows made into Arrow at a time
_LOOKED_AT = 200  # rows that tell which delimiter a file without a telling header has
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


def read_delimited(lines: Sequence[str], asked: Format, delimiter: str) -> Rows:
    """The rows of a file from its lines, of which each keeps its end; `delimiter` is the usual one of its name.

    Raises `ValueError` where the file as a whole cannot be read; what is wrong with its rows is in the result.
    """
    with _long_fields():
        start = next((number for number, line in enumerate(lines) if line.strip("\r\n")), None)
        if start is None:
            raise ValueError("has no header and no rows")
        dialect = _dialect(lines, start, asked, delimiter)
        names, first = _header(lines, start, dialect, asked)
        columns = find_columns(names, asked.columns)
        parsed, dialect, notes, faults = _parse_best(lines, first, dialect, asked, len(names), columns)
    notes = [*columns.notes, *notes]
    if dialect.delimiter != delimiter and asked.delimiter is None:
        notes.insert(0, f"its columns are separated by {DELIMITERS[dialect.delimiter]}")
    faults += _faults(parsed, dialect, len(names), skip=asked.skip_bad_rows)
    faults += _bare_returns(lines, parsed)
    if asked.skip_bad_rows and parsed.bad:
        notes.append(f"left out {_count(len(parsed.bad), 'broken row')}: {at_lines([b.line for b in parsed.bad])}")
    hint = "" if {"text_a", "label"} <= columns.places.keys() else _hint(lines, first, dialect, names)
    return Rows(
        table=parsed.table(columns),
        names=names,
        faults=faults,
        notes=notes,
        skipped=len(parsed.bad) if asked.skip_bad_rows else 0,
        hint=hint,
    )


def _dialect(lines: Sequence[str], start: int, asked: Format, usual: str) -> Dialect:
    """The delimiter of a file and whether blanks follow it; its quoting is looked at later."""
    spaced = asked.quoting != "none" and asked.header is None and re.search(r'[,;|\t] +"', lines[start]) is not None
    candidates = [asked.delimiter] if asked.delimiter else [usual, *(d for d in DELIMITERS if d != usual)]

    def of(delimiter: str) -> Dialect:
        quoting = asked.quoting or ("none" if delimiter == "\t" else "standard")
        return Dialect(delimiter=delimiter, quoting=quoting, blank_after_delimiter=spaced)

    telling, regular = [], []
    for delimiter in candidates:
        dialect = of(delimiter)
        try:
            names, first = _header(lines, start, dialect, asked)
        except ValueError:
            continue
        if asked.header is None:
            try:
                if {"text_a", "label"} <= find_columns(names, asked.columns).places.keys():
                    telling.append(dialect)
            except ValueError:
                telling.append(dialect)  # names enough to be in doubt about
        reader = csv.reader(islice(lines, first, first + _LOOKED_AT), **{**dialect.options(), "strict": False})
        widths = {len(row) for row in reader if row}
        if len(names) > 1 and widths <= {len(names)}:
            regular.append(dialect)
    good = [dialect for dialect in telling if dialect in regular] or telling or regular
    return next((dialect for dialect in good if dialect.delimiter == usual), good[0] if good else of(candidates[0]))


def _header(lines: Sequence[str], start: int, dialect: Dialect, asked: Format) -> tuple[list[str], int]:
    """The names of the columns, and the place of the first line of rows."""
    if asked.header is not None:
        return list(asked.header), start
    # Where a file's texts need no quoting its names may still have it, as R writes them.
    options = dialect.options() if '"' not in lines[start] else {**dialect.options(), "quoting": csv.QUOTE_MINIMAL}
    reader = csv.reader(map(lines.__getitem__, range(start, len(lines))), **options)
    try:
        names = next(reader)
    except csv.Error as fault:
        raise ValueError(f"line {start + 1}, the header: {fault}") from None
    return names, start + reader.line_num


@dataclass(kw_only=True)
class _Bad:
    """A row that cannot be read."""

    line: int  # counted from 1
    columns: int
    text: str
    torn: bool  # whether a quotation mark is at fault


@dataclass(kw_only=True)
class _Parsed:
    """The rows of a file under one dialect."""

    batches: list[list[pa.Array]] = field(default_factory=list)  # a chunk's wanted columns
    starts: list[np.ndarray] = field(default_factory=list)  # the line of each row, counted from 1
    bad: list[_Bad] = field(default_factory=list)
    rescued: list[int] = field(default_factory=list)  # lines of rows with a mark that opens nothing
    several: list[tuple[int, int, int, int]] = field(default_factory=list)  # first and last line, and their fields
    doubtful: list[tuple[int, int]] = field(default_factory=list)  # first and last line

    @property
    def is_clean(self) -> bool:
        return not (self.bad or self.rescued or self.doubtful)

    def table(self, columns: Columns) -> pa.Table:
        names = [ours for ours in OURS if ours in columns.places]
        chunks = [pa.chunked_array([batch[i] for batch in self.batches], pa.string()) for i in range(len(names))]
        lines = pa.chunked_array([pa.array(starts, pa.int64()) for starts in self.starts], pa.int64())
        return pa.table([*chunks, lines], names=[*names, LINE])


def _parse_best(
    lines: Sequence[str], first: int, dialect: Dialect, asked: Format, width: int, columns: Columns
) -> tuple[_Parsed, Dialect, list[str], list[str]]:
    """The rows under the quoting that was asked for, else under the one that the file speaks for; notes; faults."""

    def parse(quoting: Quoting) -> tuple[_Parsed, Dialect]:
        chosen = Dialect(
            delimiter=dialect.delimiter, quoting=quoting, blank_after_delimiter=dialect.blank_after_delimiter
        )
        return _Parser(lines, chosen, width, columns, settled=asked.quoting is not None).parse(first), chosen

    if asked.quoting is not None:
        return *parse(asked.quoting), [], []
    if not any('"' in line for line in islice(lines, first, None)):
        return *parse("none"), [], []
    if dialect.delimiter == "\t":
        return _parse_tabs(lines, first, parse, columns)
    parsed, chosen = parse("standard")
    marked = [number for number, line in enumerate(lines, start=1) if '\\"' in line]
    escaped, backslash = parse("backslash") if marked else (parsed, chosen)
    if not marked or not escaped.is_clean or escaped.table(columns).equals(parsed.table(columns)):
        return parsed, chosen, _rescue_note(parsed), []
    if parsed.is_clean:
        return parsed, chosen, [], [_backslash_doubt(marked)]
    others = [n for n, line in enumerate(lines[first:], start=first + 1) if re.search(r'(?<!\\)(\\\\)*\\[^"\\]', line)]
    if not others:
        return escaped, backslash, ["quotation marks within texts have a backslash before them, which is taken off"], []
    return (
        escaped,
        backslash,
        [],
        [
            f'writes a quotation mark within a text as \\", but {at_lines(others)} {_have(others)} a backslash before '
            f'something else. Say "quoting": "backslash" in task.json to take every backslash off'
        ],
    )


def _backslash_doubt(lines: Sequence[int]) -> str:
    return (
        f'has a backslash before a quotation mark in {at_lines(lines)}. Say in task.json "quoting": "backslash" if it '
        f'is there for the mark alone, or "quoting": "standard" or "none" if it is part of the text'
    )


def _parse_tabs(
    lines: Sequence[str], first: int, parse: Any, columns: Columns
) -> tuple[_Parsed, Dialect, list[str], list[str]]:
    """Tab-separated rows with quotation marks: characters, unless a program that quotes has written the file."""
    said = ["texts are in quotation marks where they need them, as pandas writes them, and are read without"]
    plain, none = parse("none")
    marked = [number for number, line in enumerate(lines, start=1) if '\\"' in line]
    if marked:
        escaped, backslash = parse("backslash")
        if escaped.is_clean and plain.bad:
            return escaped, backslash, ["quotation marks have a backslash before them, which is taken off"], []
        if escaped.is_clean and not escaped.table(columns).equals(plain.table(columns)):
            return plain, none, [], [_backslash_doubt(marked)]
    if plain.bad:
        quoted, standard = parse("standard")
        if quoted.is_clean:
            return quoted, standard, said, []
        return plain, none, [], []
    quotes_all = first > 0 and lines[first - 1].startswith('"')
    written, others = 0, []
    for number, line in enumerate(islice(lines, first, None), start=first + 1):
        if '"' in line:
            if _is_written(line.rstrip("\r\n"), quotes_all):
                written += 1
            else:
                others.append(number)
    if written and not others:
        return *parse("standard"), said, []
    if written > len(others):
        return (
            plain,
            none,
            [],
            [
                f"has quotation marks around texts as pandas writes them in {_count(written, 'row')}, but otherwise in "
                f'{at_lines(others)}. Say in task.json "quoting": "standard" to read such texts without the marks, or '
                f'"quoting": "none" if they are part of the texts'
            ],
        )
    return plain, none, [], []


def _is_written(line: str, quotes_all: bool) -> bool:
    """Whether a tab-separated line is what a program writes that puts texts in marks, all of them or where needed."""
    try:
        values = next(csv.reader([line], delimiter="\t", strict=True), [])
    except csv.Error:
        return False
    if quotes_all:
        but_numbers = (value if _is_number(value) else _in_marks(value) for value in values)
        return line in ("\t".join(map(_in_marks, values)), "\t".join(but_numbers))
    return line == "\t".join(_in_marks(value) if '"' in value or "\t" in value else value for value in values)


def _in_marks(value: str) -> str:
    doubled = value.replace('"', '""')
    return f'"{doubled}"'


class _Parser:
    """Cuts lines into rows under one dialect; `settled` where the user said which, and there is no doubt."""

    def __init__(self, lines: Sequence[str], dialect: Dialect, width: int, columns: Columns, *, settled: bool) -> None:
        self._lines, self._dialect, self._width, self._settled = lines, dialect, width, settled
        self._places = [columns.places[ours] for ours in OURS if ours in columns.places]
        self._label = columns.places.get("label")
        self._label_at = self._places.index(self._label) if self._label is not None else None
        delimiter = re.escape(dialect.delimiter)
        self._quoted = re.compile(rf'"((?:[^"]|"")*)"(?={delimiter}|$)')
        self._plain = re.compile(f"[^{delimiter}]*")
        # The csv module is strict about doubled marks alone: with backslashes it lets a mark stand anywhere.
        escaped = rf'(?: *"[^"\\]*(?:\\.[^"\\]*)*"|[^"\\{delimiter}]*(?:\\.[^"\\{delimiter}]*)*)'
        self._escaped = re.compile(f"{escaped}(?:{delimiter}{escaped})*", re.DOTALL)
        self._parsed = _Parsed()

    def parse(self, first: int) -> _Parsed:
        """All rows from a place among the lines on."""
        place = first
        while place < len(self._lines):
            place = self._chunk(place)
        self._judge()
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
            if len(row) != self._width:
                self._parsed.bad.append(_Bad(line=line + 1, columns=len(row), text=self._lines[line], torn=False))
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
                self._parsed.bad.append(_Bad(line=line + 1, columns=len(row), text=self._lines[line], torn=True))
            before += 1
        self._keep(rows, np.array(starts, np.int64))
        return place + before if torn or len(rows) == _CHUNK else len(self._lines)

    def _is_strict(self, line: int, span: int) -> bool:
        if self._dialect.quoting != "backslash":
            return True
        record = "".join(self._lines[line : line + span]).rstrip("\r\n")
        return self._escaped.fullmatch(record) is not None

    def _keep(self, rows: list[list[str]], starts: np.ndarray) -> None:
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
                parsed.bad.append(_Bad(line=line, columns=len(row), text=self._lines[line - 1], torn=True))
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
        scores = len(values) > _FEW and all(map(_is_number, values))
        width, label = self._width, self._label

        def known(row: list[str]) -> bool:
            assert label is not None
            return len(row) == width and (row[label] in values or (scores and _is_number(row[label])))

        return known


def _faults(parsed: _Parsed, dialect: Dialect, width: int, *, skip: bool) -> list[str]:
    faults = []
    ragged, torn = [bad for bad in parsed.bad if not bad.torn], [bad for bad in parsed.bad if bad.torn]
    rows = sum(map(len, parsed.starts)) + len(parsed.bad)
    separator = {"\t": "a tab"}.get(dialect.delimiter, f"a {dialect.delimiter!r}")
    if ragged and not skip:
        remedy = f"put quotation marks around a text that holds {separator}"
        if dialect.quoting == "none" and dialect.delimiter == "\t":
            remedy = "a text may hold no tab and no line break"
        came = "; ".join(f"line {bad.line} has {bad.columns}: {_begin(bad.text)}" for bad in ragged[:3])
        faults.append(
            f"every row must have {width} columns as the header has, but {at_lines([b.line for b in ragged])} of "
            f"{_count(rows, 'row')} {_have(ragged)} not ({came}). Mend them ({remedy}), or leave such rows out by "
            f"{SKIP}"
        )
    if torn and not skip:
        came = "; ".join(f"line {bad.line}: {_begin(bad.text)}" for bad in torn[:3])
        faults.append(
            f"a quotation mark must open and close a whole text, but does not in {at_lines([b.line for b in torn])} of "
            f"{_count(rows, 'row')} ({came}). Double the marks within a text and put marks around it, or say "
            f'"quoting": "none" in task.json where all marks are characters, or leave such rows out by {SKIP}'
        )
    if parsed.doubtful:
        spans = ", ".join(f"{first}-{last}" for first, last in parsed.doubtful[:5])
        swallowed = sum(last - first + 1 for first, last in parsed.doubtful)
        faults.append(
            f"a quotation mark opens and closes some lines later, and the lines between ({spans}"
            f"{', ...' if len(parsed.doubtful) > 5 else ''}; {swallowed} in all) look like rows of their own. Take the "
            f'mark out or double it; or say in task.json "quoting": "standard" if these are texts of several lines, '
            f'or "quoting": "none" if all marks are characters'
        )
    return faults


def _bare_returns(lines: Sequence[str], parsed: _Parsed) -> list[str]:
    """The fault of a carriage return outside of quotation marks in a file whose lines end with a line feed."""
    if not lines[0].endswith("\n"):
        return []
    bare = np.array([number for number, line in enumerate(lines, start=1) if line.endswith("\r")], np.int64)
    cut = (
        [line for starts in parsed.starts for line in (starts[np.isin(starts - 1, bare)] - 1).tolist()]
        if len(bare)
        else []
    )
    if not cut:
        return []
    return [
        f"a carriage return (\\r) cuts {at_lines(cut)}, though the lines of the file end with a line feed (\\n). "
        f"Take it out, or put quotation marks around the text that holds it"
    ]


def _rescue_note(parsed: _Parsed) -> list[str]:
    if not parsed.rescued:
        return []
    return [f"a quotation mark that opens nothing is taken for a character: {at_lines(parsed.rescued)}"]


def _hint(lines: Sequence[str], first: int, dialect: Dialect, names: Sequence[str]) -> str:
    reader = csv.reader(islice(lines, first, first + _LOOKED_AT), **{**dialect.options(), "strict": False})
    return suggestion(names, [row for row in reader if len(row) == len(names)])


def _begin(text: str, length: int = 60) -> str:
    text = text.rstrip("\r\n")
    return repr(text if len(text) <= length else f"{text[:length]}...")


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _count(number: int, what: str) -> str:
    return f"{number:,} {what}{'s' if number != 1 else ''}"


def _have(what: Sequence[object]) -> str:
    return "has" if len(what) == 1 else "have"


@contextmanager
def _long_fields() -> Iterator[None]:
    """A text may have any length: the csv module's own limit is 131,072 characters."""
    before = csv.field_size_limit(sys.maxsize)
    try:
        yield
    finally:
        csv.field_size_limit(before)
