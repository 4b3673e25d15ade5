"""Rows as JSON: an object a line, one list of objects, or one object that holds rows or columns."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

import pyarrow as pa

from trainables.data.columns import find_columns, names_columns, suggestion
from trainables.data.label_sets import FLAG
from trainables.data.labels import SEVERAL
from trainables.data.reading import LINE, SKIP, Format, Rows, at_lines

_CHUNK = 20_000  # rows made into Arrow at a time
_LOOKED_AT = 200  # rows that tell which column is which


@dataclass(kw_only=True)
class _Misses:
    """The rule of a row or a value -> where it is not kept, and how the first of them looks."""

    where: dict[str, list[int]] = field(default_factory=dict)
    first: dict[str, str] = field(default_factory=dict)

    def add(self, rule: str, number: int, came: str) -> None:
        self.where.setdefault(rule, []).append(number)
        self.first.setdefault(rule, came)


def read_json(lines: Sequence[str], asked: Format) -> Rows:
    """The rows of a file, however it holds them. Raises `ValueError` where it holds none."""
    rows = whole_rows(lines, asked)
    return read_json_lines(lines, asked) if rows is None else read_json_list(rows, asked)


def whole_rows(lines: Sequence[str], asked: Format) -> list[Any] | None:
    """The rows of a file that is one value, or values of several lines each; None where each line is a value.

    One value is a list of rows, or an object: of columns as pandas writes it, by row or as lists; of rows by their
    number; or with one list of rows among its values. Raises `ValueError` where it has several.
    """
    filled = (line for line in lines if line.strip())
    first, is_alone = next(filled, "").strip(), next(filled, None) is None
    try:
        json.loads(first)
    except (ValueError, RecursionError):
        is_whole = first[:1] in ("[", "{")
    else:
        is_whole = is_alone
    values = _values(lines) if is_whole else None
    if values is None or len(values) != 1:
        return values
    if isinstance(values[0], list):
        return values[0]
    return _rows_of(values[0], asked) if isinstance(values[0], dict) else None


def _values(lines: Sequence[str]) -> list[Any] | None:
    """The values that stand one after the other, with commas between them or not; None where anything else stands."""
    text, place = "".join(lines), 0
    twice: list[str] = []
    found = []

    def note(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        values = dict(pairs)
        if len(values) < len(pairs):
            keys = [key for key, _ in pairs]
            twice.append(next(key for key in keys if keys.count(key) > 1))
        return values

    decoder = json.JSONDecoder(object_pairs_hook=note)
    while place := _next(text, place):
        try:
            value, place = decoder.raw_decode(text, place - 1)
        except (ValueError, RecursionError):
            return None
        found.append(value)
    if twice:
        raise ValueError(f"every object must have a key once, but {len(twice):,} have one twice (such as {twice[0]!r})")
    return found


def _next(text: str, place: int) -> int:
    """The place after the next character that is no blank; 0 where there is none."""
    match = re.compile(r"[\s,]*").match(text, place)
    return match.end() + 1 if match is not None and match.end() < len(text) else 0


def _rows_of(value: Mapping[str, Any], asked: Format) -> list[Any] | None:
    """The rows that one object holds; None where it is a row itself."""
    inner = list(value.values())
    if names_columns(list(value), asked.columns):
        if all(isinstance(column, dict) for column in inner):
            places = list(dict.fromkeys(place for column in inner for place in column))
            return [{name: column.get(place) for name, column in value.items()} for place in places]
        if all(isinstance(column, list) and len(column) == len(inner[0]) for column in inner):
            return [dict(zip(value, row, strict=True)) for row in zip(*inner, strict=True)]
        return None
    columns, data = value.get("columns"), value.get("data")
    if isinstance(columns, list) and isinstance(data, list) and all(isinstance(row, list) for row in data):
        return [dict(zip(map(str, columns), row, strict=False)) for row in data]
    if inner and all(isinstance(row, dict) and names_columns(list(row), asked.columns) for row in inner):
        return inner
    lists = {name: rows for name, rows in value.items() if isinstance(rows, list) and _are_objects(rows)}
    if len(lists) > 1:
        raise ValueError(
            f"is one object with several lists of rows ({', '.join(lists)}): save each as a file of its own, such as "
            f"{next(iter(lists))}.json"
        )
    return next(iter(lists.values()), None)


def _are_objects(values: Sequence[Any]) -> bool:
    return bool(values) and all(isinstance(value, dict) for value in values)


def read_json_lines(lines: Sequence[str], asked: Format) -> Rows:
    """One object a line; a key that is absent is a null. Raises `ValueError` where no column can be told."""

    def rows(misses: _Misses) -> Iterator[tuple[int, dict[str, Any]]]:
        for number, line in enumerate(lines, start=1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except ValueError as fault:
                misses.add("must be JSON", number, f"line {number} is not JSON: {fault}")
            except RecursionError:
                misses.add("must be JSON", number, f"line {number} is too deep")
            else:
                if isinstance(row, dict):
                    yield number, row
                else:
                    misses.add("must be an object", number, f"line {number}: must be an object, but is {_kind(row)}")

    return _table(rows, asked, lines)


def read_json_list(values: Sequence[Any], asked: Format) -> Rows:
    """Objects, a row each."""

    def rows(misses: _Misses) -> Iterator[tuple[int, dict[str, Any]]]:
        for number, row in enumerate(values, start=1):
            if isinstance(row, dict):
                yield number, row
            else:
                misses.add("must be an object", number, f"row {number}: must be an object, but is {_kind(row)}")

    return _table(rows, asked, None)


def _table(
    rows: Callable[[_Misses], Iterator[tuple[int, dict[str, Any]]]], asked: Format, lines: Sequence[str] | None
) -> Rows:
    """`lines` are the file's where a row is one of them, and None where rows have only their number."""
    names: dict[str, None] = {}
    for _, row in islice(rows(_Misses()), _CHUNK):
        names.update(dict.fromkeys(row))
    while True:
        columns, seen = find_columns(list(names), asked.columns), len(names)
        keys = list(columns.kept)
        theirs = [list(names)[place] for place in columns.kept.values()]
        once = theirs[: len(columns.places)]  # of others it does not matter
        misses, numbers = _Misses(), []
        values: list[list[Any]] = [[] for _ in keys]
        for number, row in rows(misses):
            if not row.keys() <= names.keys():
                names.update(dict.fromkeys(row))
            cells = [row.get(name) for name in theirs]
            # Python takes the last of a key's values; the line's text tells whether there may be several.
            if lines is not None and any(
                name in row and lines[number - 1].count(f'"{name}"') > 1 and _stands_twice(lines[number - 1], name)
                for name in once
            ):
                misses.add("must have a key once", number, f"line {number} has one twice")
            elif all(_is_sound(ours, cell, number, misses) for ours, cell in zip(keys, cells, strict=True)):
                for column, cell in zip(values, cells, strict=True):
                    column.append(cell)
                numbers.append(number)
        if len(names) == seen or find_columns(list(names), asked.columns) == columns:
            break  # else a late row has a column that counts: once more from the start
    if "label" in keys and not asked.may_be_several:
        _refuse_few_lists(values, keys.index("label"), numbers, misses)
    made = {ours: _column(ours, column) for ours, column in zip(keys, values, strict=True)}
    if lines is not None or not made:
        made[LINE] = pa.array(numbers, pa.int64())
    skipped = sorted({number for places in misses.where.values() for number in places})
    notes, what = list(columns.notes), "line" if lines is not None else "row"
    if skipped and asked.skip_bad_rows:
        notes.append(f"left out {len(skipped)} broken row{'s' * (len(skipped) > 1)}: {at_lines(skipped, what)}")
    faults = [] if asked.skip_bad_rows else _faults(misses, len(numbers) + len(skipped), what)
    if not keys and (nested := [name for name in names if _holds_objects(rows, name)]):
        faults.append(
            f"its rows hold objects ({', '.join(nested)}): make the text and the label keys of the row itself"
        )
    return Rows(
        table=pa.table(made),
        names=list(names),
        faults=faults,
        notes=notes,
        skipped=len(skipped) if asked.skip_bad_rows else 0,
        format={"columns": dict(zip(keys, theirs, strict=True))},
        hint="" if {"text_a", "label"} <= columns.places.keys() else _hint(rows, list(names)),
    )


def _hint(rows: Callable[[_Misses], Iterator[tuple[int, dict[str, Any]]]], names: Sequence[str]) -> str:
    """Which columns to declare, by the values of some rows; nothing where these hold objects or lists."""
    some = [row for _, row in islice(rows(_Misses()), _LOOKED_AT)]
    plain = [name for name in names if not any(isinstance(row.get(name), dict | list) for row in some)]
    cells = [["" if row.get(name) is None else str(row[name]) for name in plain] for row in some]
    return suggestion(plain, cells) if len(plain) == len(names) or len(plain) > 1 else ""


def _refuse_few_lists(values: list[list[Any]], label: int, numbers: list[int], misses: _Misses) -> None:
    """Take out the rows whose label is a list where most are none, or the other way round: one of them is a slip."""
    is_list = [isinstance(cell, list) for cell in values[label]]
    is_alone = [cell is not None and not isinstance(cell, list) for cell in values[label]]
    if not any(is_list) or not any(is_alone):
        return
    odd = is_list if sum(is_list) <= sum(is_alone) else is_alone
    for number, cell in [(numbers[row], values[label][row]) for row, is_odd in enumerate(odd) if is_odd]:
        rule = f"label must be one alone, or a list in every row (say {SEVERAL} if rows have any number of labels)"
        misses.add(rule, number, f"{number} has {_begin(cell)}")
    for column in (*values, numbers):
        column[:] = [cell for cell, is_odd in zip(column, odd, strict=True) if not is_odd]


def _column(ours: str, cells: list[Any]) -> pa.ChunkedArray:
    if ours.startswith(FLAG):
        cells = [int(cell) if cell in (0, 1, "0", "1") else None for cell in cells]
        return pa.chunked_array([pa.array(cells, pa.int64())])
    if ours == "label" and any(isinstance(cell, list) for cell in cells):
        cells = [cell if isinstance(cell, list) or cell is None else [cell] for cell in cells]
        kind = _label_kind([label for cell in cells for label in cell or ()])
        cells = [cell and [str(label) if pa.types.is_string(kind) else label for label in cell] for cell in cells]
        return pa.chunked_array([pa.array(cells, pa.list_(kind))])
    kind = _label_kind(cells) if ours == "label" else pa.string()
    if pa.types.is_string(kind):
        cells = [str(cell) if isinstance(cell, int | float) else cell for cell in cells]
    chunks = [pa.array(cells[start : start + _CHUNK], kind) for start in range(0, len(cells), _CHUNK)]
    return pa.chunked_array(chunks, kind)


def _holds_objects(rows: Callable[[_Misses], Iterator[tuple[int, dict[str, Any]]]], name: str) -> bool:
    return any(isinstance(row.get(name), dict) for _, row in islice(rows(_Misses()), 1))


def _is_sound(ours: str, cell: Any, number: int, misses: _Misses) -> bool:
    """Whether a value can be a text, or a label or a list of labels."""
    if cell is None or ours.startswith(FLAG):
        return True
    if ours != "label":
        if isinstance(cell, str):
            return _is_unicode(ours, cell, number, misses)
        came = f"{number} has {_kind(cell)}: {_begin(cell)}"
        misses.add(f"{ours} must be text", number, came)
        return False
    if isinstance(cell, str):
        return _is_unicode(ours, cell, number, misses)
    if isinstance(cell, list):
        if all(isinstance(label, str | int | float) for label in cell):
            return all(_is_sound(ours, label, number, misses) for label in cell)
        misses.add("label must be a number, a name or a list of them", number, f"{number} has {_begin(cell)}")
        return False
    if isinstance(cell, dict):
        misses.add("label must be a number or a name", number, f"{number} has an object: {_begin(cell)}")
        return False
    if isinstance(cell, int) and not isinstance(cell, bool) and not -(2**63) <= cell < 2**63:
        misses.add("label must be a number of 64 bits", number, f"{number} has {_begin(cell)}")
        return False
    return True


def _is_unicode(ours: str, cell: str, number: int, misses: _Misses) -> bool:
    if cell.isascii():
        return True
    try:
        cell.encode()
    except UnicodeEncodeError:
        misses.add(f"{ours} must be whole characters", number, f"{number} has half of one: {ascii(cell)[:60]}")
        return False
    return True


def _label_kind(cells: Sequence[Any]) -> pa.DataType:
    """The type of a column of labels: 1 and "1" are alike, and so are 1 and 1.0; true is a name, like any text."""
    kinds = {type(cell) for cell in cells if cell is not None}
    if kinds == {bool}:
        return pa.bool_()
    if kinds <= {int}:
        return pa.int64() if kinds else pa.null()
    if kinds <= {int, float}:
        return pa.float64()
    return pa.string()


def _stands_twice(line: str, key: str) -> bool:
    keys: list[str] = []

    def note(pairs: list[tuple[str, Any]]) -> None:
        keys[:] = [name for name, _ in pairs]  # the outermost object is the last to be complete

    json.loads(line, object_pairs_hook=note)
    return keys.count(key) > 1


def _faults(misses: _Misses, rows: int, what: str) -> list[str]:
    faults = []
    for rule, places in misses.where.items():
        first = misses.first[rule]
        first = f"{what} {first}" if first[0].isdigit() else first
        whose = f"every {what}'s" if rule.startswith(("text", "label")) else f"every {what}"
        faults.append(
            f"{whose} {rule}, but {at_lines(places, what)} of {rows:,} break{'s' * (len(places) == 1)} this ({first})"
        )
    if faults:
        faults[-1] += f". Mend what is wrong, or leave such rows out by {SKIP}"
    return faults


def _kind(value: object) -> str:
    return type(value).__name__


def _begin(value: object) -> str:
    if isinstance(value, int) and value.bit_length() > 200:
        return "a very large number"
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:60]}..."
