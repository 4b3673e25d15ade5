"""What the first lines of a delimited file tell: where its rows begin, what separates columns, and their names."""

from __future__ import annotations

import csv
import dataclasses
import re
from collections.abc import Sequence
from itertools import islice

from trainables.data.columns import find_columns, names_columns
from trainables.data.parsing import Dialect
from trainables.data.reading import Format, at_lines

DELIMITERS = {",": "commas", "\t": "tabs", ";": "semicolons", "|": "vertical bars"}
LOOKED_AT = 200  # rows that tell which delimiter a file without a telling header has


def beginning(lines: Sequence[str], asked: Format, usual: str) -> tuple[int, Format, list[str]]:
    """The place of the first line that counts, what that says of the format, and what is to be said.

    Before it stand blank lines, Excel's `sep=;`, which names the separator, and lines of remarks that begin with `#`,
    where the line after them names the columns of texts and labels.
    """
    filled = (number for number, line in enumerate(lines) if line.strip("\r\n"))
    start = next(filled, None)
    if start is None:
        raise ValueError("has no header and no rows")
    said = lines[start].strip("\r\n").strip('"')
    if len(said) == 5 and said.lower().startswith("sep=") and (after := next(filled, None)) is not None:
        return after, asked if asked.delimiter else dataclasses.replace(asked, delimiter=said[-1]), []
    if asked.header is None and said.startswith("#"):
        after = next((number for number in filled if not lines[number].startswith("#")), None)
        if after is not None and _tells(lines, after, asked, usual) and not _tells(lines, start, asked, usual):
            remarks = [number for number in range(start + 1, after + 1) if lines[number - 1].startswith("#")]
            return after, asked, [f"not read, since it is a remark above the names of columns: {at_lines(remarks)}"]
    return start, asked, []


def find_dialect(lines: Sequence[str], start: int, asked: Format, usual: str) -> Dialect:
    """The delimiter of a file and whether blanks follow it; its quoting is looked at later."""
    looked_at = [line.rstrip("\r\n") for line in islice(lines, start, start + LOOKED_AT) if line.strip()]
    candidates = [asked.delimiter] if asked.delimiter else [usual, *(d for d in DELIMITERS if d != usual)]

    def of(delimiter: str) -> Dialect:
        quoting = asked.quoting or ("none" if delimiter == "\t" else "standard")
        spaced = asked.quoting != "none" and _blank_follows(looked_at, delimiter, has_header=asked.header is None)
        return Dialect(delimiter=delimiter, quoting=quoting, blank_after_delimiter=spaced)

    telling, regular = [], []
    for delimiter in candidates:
        dialect = of(delimiter)
        try:
            names, first = read_header(lines, start, dialect, asked)
        except ValueError:
            continue
        if asked.header is None:
            try:
                found = find_columns(names, asked.columns)
                if {"text_a", "label"} <= found.places.keys() or (asked.columns and found.flags):
                    telling.append(dialect)
            except ValueError:
                telling.append(dialect)  # names enough to be in doubt about
        reader = csv.reader(islice(lines, first, first + LOOKED_AT), **{**dialect.options(), "strict": False})
        widths = {len(row) for row in reader if row}
        if len(names) > 1 and widths <= {len(names)}:
            regular.append(dialect)
    good = [dialect for dialect in telling if dialect in regular] or telling or regular
    return next((dialect for dialect in good if dialect.delimiter == usual), good[0] if good else of(candidates[0]))


def _tells(lines: Sequence[str], start: int, asked: Format, usual: str) -> bool:
    """Whether a line names the columns of texts and labels."""
    try:
        names, _ = read_header(lines, start, find_dialect(lines, start, asked, usual), asked)
    except ValueError:
        return False
    return names_columns(names, asked.columns)


def read_header(lines: Sequence[str], start: int, dialect: Dialect, asked: Format) -> tuple[list[str], int]:
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


def _blank_follows(lines: Sequence[str], delimiter: str, *, has_header: bool) -> bool:
    """Whether a blank follows each delimiter and belongs to none of the fields: in the header, and in all rows.

    Marks after a blank in the header are enough.
    """
    if not has_header or not lines:
        return False
    if re.search(r'[,;|\t] +"', lines[0]):
        return True
    one = re.escape(delimiter)
    field = rf'(?:"(?:[^"]|"")*"|[^"{one}][^{one}]*)'
    spaced = re.compile(rf"{field}(?:{one} +{field})+")
    return all(spaced.fullmatch(line) for line in lines if line.count('"') % 2 == 0)


def with_unnamed(lines: Sequence[str], names: Sequence[str], first: int, dialect: Dialect) -> list[str]:
    """The names of all columns that rows have, the empty text for those that the header leaves out.

    These are the numbers of rows that R writes before them, in any order below a header in quotation marks, and nothing
    at all after a delimiter at the end of lines. What some rows alone have stays a fault.
    """

    def rows(at_most: int | None = None) -> list[list[str]]:
        reader = csv.reader(islice(lines, first, at_most), **{**dialect.options(), "strict": False})
        return [row for row in reader if any(row)]

    width = len(names)
    sample = {len(row) for row in rows(first + LOOKED_AT)[:-1]}  # the last may be cut
    if len(sample) != 1 or not sample <= {width - 1, width + 1}:
        return list(names)
    found = rows()
    if {len(row) for row in found} == {width + 1}:
        if not any(row[-1].strip() for row in found):
            return [*names, ""]
        numbers = [row[0].strip('"') for row in found]
        counted = [[str(n) for n in range(begin, begin + len(numbers))] for begin in (0, 1)]
        is_of_r = first > 0 and lines[first - 1].startswith('"') and all(map(str.isdecimal, numbers))
        if numbers in counted or (is_of_r and len(set(numbers)) == len(numbers)):
            return ["", *names]
    if {len(row) for row in found} == {width - 1} and not names[-1].strip():
        return list(names[:-1])
    return list(names)
