"""What was odd in the data of the tasks that were trained on: one small file, `data_warnings.parquet`."""

from __future__ import annotations

import logging
from collections.abc import Collection

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from orchestrator.store.files import Folder
from orchestrator.store.segments import parquet_bytes

logger = logging.getLogger(__name__)

FILE = "data_warnings.parquet"
_SCHEMA = pa.schema({"task": pa.string(), "warning": pa.string(), "sentence": pa.string()})


def write_data_warnings(folder: Folder, table: pa.Table, tasks: Collection[str]) -> None:
    """Replace the rows of these tasks. Without a change, nothing is written. Raises `OSError`."""
    before = read_data_warnings(folder)
    if before is None:
        before = _SCHEMA.empty_table()
        if not len(table):
            return
    others = before.filter(pc.invert(pc.is_in(before["task"], pa.array(list(tasks), pa.string()))))
    now = pa.concat_tables([others, table.cast(_SCHEMA)]).sort_by([("task", "ascending")])
    if not now.equals(before):
        folder.write(FILE, parquet_bytes(now))


def read_data_warnings(folder: Folder) -> pa.Table | None:
    """The file's rows; None where there is none, or none that can be read. Raises `OSError`."""
    if not folder.exists(FILE):
        return None
    content = folder.read(FILE)
    try:
        return pq.ParquetFile(pa.BufferReader(content)).read().select(_SCHEMA.names).cast(_SCHEMA)
    except Exception as error:  # whatever Arrow makes of bytes that are anybody's
        logger.warning("%s does not hold warnings about data and is left out: %s", folder.at(FILE), error)
        return None
