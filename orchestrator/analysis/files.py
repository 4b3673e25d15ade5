"""Answers as the content of files that other tools read."""

from __future__ import annotations

import json

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet


def csv_bytes(table: pa.Table) -> bytes:
    """As CSV, a nested value as JSON in its cell, null as an empty cell."""
    for index, field in enumerate(table.schema):
        if pa.types.is_nested(field.type):
            cells = [None if v is None else json.dumps(v, default=str) for v in table[field.name].to_pylist()]
            table = table.set_column(index, field.name, pa.array(cells, pa.string()))
    sink = pa.BufferOutputStream()
    pyarrow.csv.write_csv(table, sink)
    return bytes(sink.getvalue())


def parquet_bytes(table: pa.Table) -> bytes:
    sink = pa.BufferOutputStream()
    pyarrow.parquet.write_table(table, sink)
    return bytes(sink.getvalue())
