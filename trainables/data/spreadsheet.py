"""Rows of a spreadsheet (.xlsx, .xls, .xlsb, .ods), by way of a library that is an extra of its own."""

from __future__ import annotations

import datetime
from pathlib import Path
from typing import Any

import pyarrow as pa

from trainables.data.columns import find_columns, suggestion
from trainables.data.reading import LINE, Format, Rows, at_lines

ENDINGS = (".xlsx", ".xls", ".xlsb", ".ods")
_LOOKED_AT = 200  # rows that tell which column is which


def sheet_names(path: Path) -> list[str]:
    """The names of the sheets that hold anything; none where the file cannot be read."""
    try:
        return list(_filled(path))
    except ValueError:  # a fault for whoever reads its rows
        return []


def read_spreadsheet(path: Path, asked: Format, sheet: str | None = None) -> Rows:
    """The rows of a sheet, or of the first that has any; its first row names the columns, unless a header is asked.

    Raises `ValueError` where the file is none, or the library that reads it is not installed.
    """
    filled = _filled(path)
    if not filled:
        raise ValueError("has no sheet with rows")
    name = sheet if sheet in filled else next(iter(filled))
    rows, notes = filled[name], []
    if sheet is None and (others := [repr(other) for other in filled if other != name]):
        notes.append(f"of its sheets the first, {name!r}, is read; not read: {', '.join(others)}")
    numbered = [(number, row) for number, row in enumerate(rows, start=1) if any(map(_is_filled, row))]
    blank = [number for number, row in numbered if not any(map(_is_written, row))]
    if blank:
        notes.append(f"not read, since nothing is in them: {at_lines(blank)}")
        numbered = [(number, row) for number, row in numbered if any(map(_is_written, row))]
    names = list(asked.header) if asked.header is not None else [_text(cell) or "" for cell in numbered.pop(0)[1]]
    columns = find_columns(names, asked.columns)
    cells = {
        ours: [_text(row[place]) if place < len(row) else None for _, row in numbered]
        for ours, place in columns.kept.items()
    }
    sample = [[_text(cell) or "" for cell in row] for _, row in numbered[:_LOOKED_AT] if len(row) == len(names)]
    return Rows(
        table=pa.table(
            {
                **{ours: pa.chunked_array([values], pa.string()) for ours, values in cells.items()},
                LINE: pa.array([number for number, _ in numbered], pa.int64()),
            }
        ),
        names=names,
        notes=[*columns.notes, *notes],
        format={"columns": {ours: names[place] for ours, place in columns.places.items()}},
        hint="" if {"text_a", "label"} <= columns.places.keys() else suggestion(names, sample),
    )


def _filled(path: Path) -> dict[str, list[list[Any]]]:
    """The rows of each sheet that has any."""
    try:
        from python_calamine import CalamineError, CalamineWorkbook, PasswordError
    except ImportError:
        raise ValueError("is a spreadsheet, which `pip install 'adaptune[xlsx]'` lets us read") from None
    try:
        with CalamineWorkbook.from_path(path) as workbook:
            sheets = {name: workbook.get_sheet_by_name(name).to_python() for name in workbook.sheet_names}
    except PasswordError:
        raise ValueError("is protected by a password: save it without one") from None
    except (CalamineError, OSError) as fault:
        raise ValueError(f"is no spreadsheet that can be read: {fault}") from None
    return {name: rows for name, rows in sheets.items() if any(any(map(_is_filled, row)) for row in rows)}


def _is_written(cell: Any) -> bool:
    return _is_filled(cell) and not (isinstance(cell, str) and not cell.strip())


def _is_filled(cell: Any) -> bool:
    return cell is not None and cell != ""


def _text(cell: Any) -> str | None:
    """A cell as the text that a csv file would have in its place; None where it is empty."""
    if not _is_filled(cell):
        return None
    if isinstance(cell, bool):
        return str(cell)
    if isinstance(cell, float) and cell.is_integer():
        return str(int(cell))
    if isinstance(cell, datetime.datetime) and cell.time() == datetime.time():
        return cell.date().isoformat()
    return str(cell)
