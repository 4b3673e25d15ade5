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
from collections.abc import Callable, Sequence
from itertools import islice

import numpy as np

from trainables.data.columns import Columns, find_columns, names_columns, suggestion
from trainables.data.first_lines import (
    DELIMITERS,
    LOOKED_AT,
    beginning,
    find_dialect,
    read_header,
    with_unnamed,
)
from trainables.data.parsing import Dialect, Parsed, Parser, is_number, long_fields
from trainables.data.reading import SKIP, Format, Quoting, Rows, at_lines

_IN_MARKS = r'(?:"(?:[^"\\]|\\.)*"|[-+.\deE]*|NA|TRUE|FALSE)'
_ALL_IN_MARKS = re.compile(f"{_IN_MARKS}(?:\t{_IN_MARKS})*")  # as R writes a row: numbers alone have no marks
_OTHER_BACKSLASH = re.compile(r'(?<!\\)(\\\\)*\\[^"\\]')  # that is before no mark


def read_delimited(lines: Sequence[str], asked: Format, delimiter: str) -> Rows:
    """The rows of a file from its lines, of which each keeps its end; `delimiter` is the usual one of its name.

    Raises `ValueError` where the file as a whole cannot be read; what is wrong with its rows is in the result.
    """
    with long_fields():
        start, asked, begun = beginning(lines, asked, delimiter)
        dialect = find_dialect(lines, start, asked, delimiter)
        names, first = read_header(lines, start, dialect, asked)
        named, names = names, with_unnamed(lines, names, first, dialect)
        columns = find_columns(names, asked.columns)
        parsed, dialect, notes, faults = _parse_best(lines, first, dialect, asked, names, columns)
    notes = [*columns.notes, *begun, *notes]
    if names[1:] == named:
        notes.append("the numbers before the first column that has a name are those of rows, and are not read")
    if parsed.empty:
        notes.append(f"not read, since nothing is in them: {at_lines(parsed.empty)}")
    if dialect.delimiter != delimiter and asked.delimiter is None:
        notes.insert(0, f"its columns are separated by {DELIMITERS[dialect.delimiter]}")
    faults += _faults(parsed, dialect, len(names), skip=asked.skip_bad_rows)
    faults += _bare_returns(lines, parsed)
    skipped = sorted([*(bad.line for bad in parsed.bad), *parsed.repeated]) if asked.skip_bad_rows else []
    if skipped:
        notes.append(f"left out {_count(len(skipped), 'broken row')}: {at_lines(skipped)}")
    faults += _repeated(parsed, lines, dialect, asked)
    hint = "" if {"text_a", "label"} <= columns.places.keys() else _hint(lines, first, dialect, names)
    return Rows(
        table=parsed.table(columns),
        names=names,
        faults=faults,
        notes=notes,
        skipped=len(skipped),
        format={
            "delimiter": dialect.delimiter,
            "quoting": dialect.quoting,
            "columns": {ours: names[place] for ours, place in columns.places.items()},
            **({"header": list(asked.header)} if asked.header is not None else {}),
        },
        hint=hint,
    )


def _parse_best(
    lines: Sequence[str], first: int, dialect: Dialect, asked: Format, names: Sequence[str], columns: Columns
) -> tuple[Parsed, Dialect, list[str], list[str]]:
    """The rows under the quoting that was asked for, else under the one that the file speaks for; notes; faults."""

    def parse(quoting: Quoting) -> tuple[Parsed, Dialect]:
        chosen = Dialect(
            delimiter=dialect.delimiter, quoting=quoting, blank_after_delimiter=dialect.blank_after_delimiter
        )
        return Parser(lines, chosen, names, columns, settled=asked.quoting is not None).parse(first), chosen

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
    others = [n for n, line in enumerate(lines[first:], start=first + 1) if _OTHER_BACKSLASH.search(line)]
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
    lines: Sequence[str], first: int, parse: Callable[[Quoting], tuple[Parsed, Dialect]], columns: Columns
) -> tuple[Parsed, Dialect, list[str], list[str]]:
    """Tab-separated rows with quotation marks: characters, unless a program that quotes has written the file."""
    said = ["texts are in quotation marks where they need them, as pandas writes them, and are read without"]
    plain, none = parse("none")
    marked = [number for number, line in enumerate(lines, start=1) if '\\"' in line]
    if marked:
        escaped, backslash = parse("backslash")
        if escaped.is_clean and plain.bad:
            return escaped, backslash, ["quotation marks have a backslash before them, which is taken off"], []
        if escaped.is_clean and first > 0 and all(map(_is_all_in_marks, lines[first - 1 :])):
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
    quoted, standard = parse("standard")
    if written and not others:
        return quoted, standard, said, []
    if quoted.is_clean and quoted.several:
        spans = ", ".join(f"{first}-{last}" for first, last, *_ in quoted.several[:5])
        return (
            plain,
            none,
            [],
            [
                f"has quotation marks that may enclose texts of several lines (lines {spans}). Say in task.json "
                f'"quoting": "standard" if they do, or "quoting": "none" if they are part of the texts'
            ],
        )
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


def _is_all_in_marks(line: str) -> bool:
    """Whether all texts of a line are in marks, and every backslash is there for a mark."""
    other = "\\\\" in line or _OTHER_BACKSLASH.search(line)
    return _ALL_IN_MARKS.fullmatch(line.rstrip("\r\n")) is not None and not other


def _is_written(line: str, quotes_all: bool) -> bool:
    """Whether a tab-separated line is what a program writes that puts texts in marks, all of them or where needed."""
    try:
        values = next(csv.reader([line], delimiter="\t", strict=True), [])
    except csv.Error:
        return False
    if quotes_all:
        but_numbers = (value if is_number(value) else _in_marks(value) for value in values)
        return line in ("\t".join(map(_in_marks, values)), "\t".join(but_numbers))
    return line == "\t".join(_in_marks(value) if '"' in value or "\t" in value else value for value in values)


def _in_marks(value: str) -> str:
    doubled = value.replace('"', '""')
    return f'"{doubled}"'


def _faults(parsed: Parsed, dialect: Dialect, width: int, *, skip: bool) -> list[str]:
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


def _repeated(parsed: Parsed, lines: Sequence[str], dialect: Dialect, asked: Format) -> list[str]:
    """The fault of rows that are the names of the columns: of files put together, or where no line was said to be."""
    if asked.header is not None:
        first = min([*parsed.repeated, *(int(starts[0]) for starts in parsed.starts if len(starts))], default=0)
        row = next(csv.reader(lines[first - 1 : first], **{**dialect.options(), "strict": False}), [])
        if first in parsed.repeated or names_columns(row):
            return [
                f"its first line ({', '.join(row)[:80]}) names the columns, though header in task.json says that no "
                f"line does. Take header out, and say by columns which is which"
            ]
    if not parsed.repeated or asked.skip_bad_rows:
        return []
    return [
        f"the names of the columns stand again in {at_lines(parsed.repeated)}, as in files put together. Take them "
        f"out, or leave them out by {SKIP}"
    ]


def _bare_returns(lines: Sequence[str], parsed: Parsed) -> list[str]:
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


def _rescue_note(parsed: Parsed) -> list[str]:
    if not parsed.rescued:
        return []
    return [f"a quotation mark that opens nothing is taken for a character: {at_lines(parsed.rescued)}"]


def _hint(lines: Sequence[str], first: int, dialect: Dialect, names: Sequence[str]) -> str:
    reader = csv.reader(islice(lines, first, first + LOOKED_AT), **{**dialect.options(), "strict": False})
    return suggestion(names, [row for row in reader if len(row) == len(names)])


def _begin(text: str, length: int = 60) -> str:
    text = text.rstrip("\r\n")
    return repr(text if len(text) <= length else f"{text[:length]}...")


def _count(number: int, what: str) -> str:
    return f"{number:,} {what}{'s' if number != 1 else ''}"


def _have(what: Sequence[object]) -> str:
    return "has" if len(what) == 1 else "have"
