"""One file of predictions: a row per trial, split and row, as Parquet that other tools read."""

from __future__ import annotations

import io
import itertools
import json
from collections.abc import Iterable, Iterator

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from trainables.predictions import Predictions, lists, value_array

# Trials are put into one row group until it has so many rows: whoever asks for one trial reads no more than these.
GROUP_ROWS = 20_000
_TRAININGS = b"adaptune.trainings"  # in a file's metadata: trial_id -> when the trainings started that it is of

SCHEMA = pa.schema(
    {
        **dict.fromkeys(("trial_id", "started_at", "split", "kind", "rows"), pa.string()),
        "row": pa.int32(),
        "class": pa.int32(),
        "number": pa.float32(),
        "text": pa.string(),
        "scores": pa.list_(pa.float16()),
        "classes": pa.list_(pa.int32()),
    }
)
# The column that holds the predictions of a kind of task. Where a row may have several labels, `classes` are those that
# are predicted; else they are whose the `scores` are.
COLUMN = {"classification": "class", "regression": "number", "extractive_qa": "text", "multilabel": "classes"}


def trial_table(trial_id: str, started_at: str, split: str, found: Predictions) -> pa.Table:
    count = len(found.rows)
    texts = {"trial_id": trial_id, "started_at": started_at, "split": split, "kind": found.kind, "rows": found.rows.id}
    columns = {name: pa.repeat(pa.scalar(text, pa.string()), count) for name, text in texts.items()}
    columns["row"] = pa.array(np.arange(count, dtype=np.int32))
    columns |= {name: pa.nulls(count, SCHEMA.field(name).type) for name in COLUMN.values()}
    columns["scores"] = lists(found.scores, pa.float16(), count)
    columns["classes"] = lists(found.classes, pa.int32(), count)
    name = COLUMN[found.kind]
    columns[name] = value_array(found.values, found.kind).cast(SCHEMA.field(name).type)
    return pa.table(columns, schema=SCHEMA)


def file_bytes(tables: Iterable[pa.Table]) -> bytes:
    """Predictions as a Parquet file, trial after trial in the order of their ids: one is read without the others."""
    parts: dict[str, list[pa.Table]] = {}
    for table in tables:
        codes = table["trial_id"].combine_chunks().dictionary_encode()
        bounds = [0, *(np.flatnonzero(np.diff(codes.indices.to_numpy())) + 1).tolist(), table.num_rows]
        for start, end in itertools.pairwise(bounds):
            parts.setdefault(table["trial_id"][start].as_py(), []).append(table.slice(start, end - start))
    by_trial = {trial_id: pa.concat_tables(parts[trial_id]) for trial_id in sorted(parts)}
    trainings = {trial_id: pc.unique(table["started_at"]).to_pylist() for trial_id, table in by_trial.items()}
    schema = SCHEMA.with_metadata({_TRAININGS: json.dumps(trainings).encode()})
    sink = io.BytesIO()
    # Numbers that follow each other, and halves whose first bytes are alike, take the least room so.
    encodings = {"row": "DELTA_BINARY_PACKED", "scores.list.element": "BYTE_STREAM_SPLIT"}
    texts = ["trial_id", "started_at", "split", "kind", "rows", "class", "text", "classes.list.element"]
    with pq.ParquetWriter(
        sink, schema, compression="zstd", use_dictionary=texts, column_encoding=encodings, write_page_checksum=True
    ) as writer:
        for group in _groups(by_trial.values()):
            writer.write_table(group.replace_schema_metadata(schema.metadata), row_group_size=group.num_rows)
    return sink.getvalue()


def read_file(content: pa.Buffer) -> tuple[pa.Table, dict[str, list[str]]]:
    """All of a file, and the trainings that it is of. Raises whatever comes of bytes that are no such file."""
    file = pq.ParquetFile(pa.BufferReader(content), page_checksum_verification=True)
    table = file.read()
    table.validate(full=True)
    return table.cast(SCHEMA), trainings_in(file.metadata)


def trainings_in(metadata: pq.FileMetaData) -> dict[str, list[str]]:
    """trial_id -> when the trainings of it started whose predictions a file holds. Raises where it is no such file."""
    found = json.loads((metadata.metadata or {})[_TRAININGS])
    return {str(trial_id): [str(at) for at in times] for trial_id, times in found.items()}


def _groups(tables: Iterable[pa.Table]) -> Iterator[pa.Table]:
    """Tables put together until they have `GROUP_ROWS` rows; none is divided."""
    gathered: list[pa.Table] = []
    for table in tables:
        gathered.append(table)
        if sum(each.num_rows for each in gathered) >= GROUP_ROWS:
            yield pa.concat_tables(gathered)
            gathered = []
    if gathered:
        yield pa.concat_tables(gathered)
