"""What models of a store's configurations cost when they answer: one small file, `inference_costs.parquet`.

A row per kind of model, form and batch size, as `trainables.estimate.inference_cost` measures them, with the machine
that they were measured on. Measured again, the file is replaced: what it holds was measured together.
"""

from __future__ import annotations

import logging

import pyarrow as pa
import pyarrow.parquet as pq

from orchestrator.store.files import Folder
from orchestrator.store.segments import parquet_bytes

logger = logging.getLogger(__name__)

FILE = "inference_costs.parquet"
SCHEMA = pa.schema(
    {
        **dict.fromkeys(("backbone", "method", "options"), pa.string()),
        "trained_params_without_head": pa.int64(),
        "form": pa.string(),  # "merged" or "beside"
        "batch_size": pa.int64(),
        **dict.fromkeys(("latency_ms", "examples_per_second", "times_backbone"), pa.float64()),
        "length": pa.int64(),
        **dict.fromkeys(("device", "precision", "num_threads", "host", "torch", "commit", "measured_at"), pa.string()),
        "config_ids": pa.list_(pa.string()),
    }
)


def write_inference_costs(folder: Folder, table: pa.Table) -> None:
    """Put these in the place of what is there. Raises `OSError`."""
    folder.write(FILE, parquet_bytes(table.select(SCHEMA.names).cast(SCHEMA)))


def read_inference_costs(folder: Folder) -> pa.Table | None:
    """The file's rows; None where there is none, or none that can be read. Raises `OSError`."""
    if not folder.exists(FILE):
        return None
    content = folder.read(FILE)
    try:
        return pq.ParquetFile(pa.BufferReader(content)).read().select(SCHEMA.names).cast(SCHEMA)
    except Exception as error:  # whatever Arrow makes of bytes that are anybody's
        logger.warning("%s does not hold costs of inference and is left out: %s", folder.at(FILE), error)
        return None
