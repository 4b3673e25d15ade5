"""Rows of a spreadsheet (.xlsx, .xls, .xlsb, .ods), by way of a library that is an extra of its own."""

from __future__ import annotations

import datetime
from pathlib import Path
from typing import Any

import pyarrow as pa

from trainables.data.columns import OURS, find_columns, suggestion
from trainables.data.reading import LINE, Format, Rows

ENDINGS = (".xlsx", ".xls", ".xlsb", ".ods")
_LOOKED_AT = 200  # rows that tell which column is which


def read_spreadsheet(path: Path, asked: Format) -> Rows:
    """The rows of the first sheet that has any; its first row holds the names of the columns, unless a header is asked.

    Raises `ValueError` where the file is none, or the library that reads it is not installed.
    """
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
    filled = {name: rows for name, rows in sheets.items() if any(any(map(_is_filled, row)) for row in rows)}
    if not filled:
        raise ValueError("has no sheet with rows")
    name, rows = next(iter(filled.items()))
    notes = []
    if others := [repr(other) for other in filled if other != name]:
        notes.append(f"of its sheets the first, {name!r}, is read; not read: {', '.join(others)}")
    numbered = [(number, row) for number, row in enumerate(rows, start=1) if any(map(_is_filled, row))]
    names = list(asked.header) if asked.header is not None else [_text(cell) or "" for cell in numbered.pop(0)[1]]
    columns = find_columns(names, asked.columns)
    keys = [ours for ours in OURS if ours in columns.places]
    cells = {
        ours: [_text(row[columns.places[ours]]) if columns.places[ours] < len(row) else None for _, row in numbered]
        for ours in keys
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
