"""Answers as the content of files that other tools read, and how a file gets its content."""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet

# A spreadsheet takes a cell that begins with one of these for a formula, and computes it.
_FORMULA = r"^[=+\-@\t\r]"


def csv_bytes(table: pa.Table) -> bytes:
    """As CSV, a nested value as JSON in its cell, null as an empty cell.

    A cell of text that a spreadsheet would take for a formula begins with an apostrophe. Parquet has it as it was.
    """
    for index, field in enumerate(table.schema):
        if pa.types.is_nested(field.type):
            cells = [None if v is None else json.dumps(v, default=str) for v in table[field.name].to_pylist()]
            table = table.set_column(index, field.name, pa.array(cells, pa.string()))
        elif pa.types.is_string(field.type) or pa.types.is_large_string(field.type):
            cells = pc.replace_substring_regex(table[field.name], _FORMULA, r"'\0")
            table = table.set_column(index, field.name, cells)
    sink = pa.BufferOutputStream()
    pyarrow.csv.write_csv(table, sink)
    return bytes(sink.getvalue())


def parquet_bytes(table: pa.Table) -> bytes:
    sink = pa.BufferOutputStream()
    pyarrow.parquet.write_table(table, sink)
    return bytes(sink.getvalue())


def replace_file(path: Path, content: bytes) -> Path:
    """Write a file in one step: its old content is there until the new one is complete."""
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
        Path(name).chmod(0o644)
        os.replace(name, path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
    return path
