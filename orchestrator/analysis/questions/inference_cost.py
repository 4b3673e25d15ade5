"""What an answer of each configuration costs, where `adaptune measure` has measured it."""

from __future__ import annotations

from collections.abc import Mapping

import pyarrow as pa
import pyarrow.compute as pc

from trainables.faults import FaultsError

SCHEMA = pa.schema(
    {
        **dict.fromkeys(("backbone", "method", "options"), pa.string()),
        "trained_params_without_head": pa.int64(),
        "form": pa.string(),
        "batch_size": pa.int64(),
        **dict.fromkeys(("latency_ms", "examples_per_second", "times_backbone"), pa.float64()),
        "length": pa.int64(),
        **dict.fromkeys(("device", "precision", "num_threads", "host", "torch", "commit", "measured_at"), pa.string()),
        "config_ids": pa.list_(pa.string()),
    }
)

# What a configuration may cost -> the batch size that says it.
INFERENCE_COSTS = {"latency_ms": 1, "ms_per_example": 64}


def conform(table: pa.Table | None) -> pa.Table:
    """The costs with the columns of `Results.inference_costs`; without any, no rows."""
    return SCHEMA.empty_table() if table is None else table.select(SCHEMA.names).cast(SCHEMA)


def unmeasured(cost: str) -> str:
    """The fault of a cost that no configuration was timed for."""
    return f"{cost}: must have been measured, but was not; `adaptune measure STORE` does, in a minute or so"


def milliseconds(table: pa.Table, cost: str) -> Mapping[str, float]:
    """config_id -> milliseconds a text, of the merged form where a model has one.

    `latency_ms` is that of a text alone, `ms_per_example` the share of one in a batch of 64.

    Raises `FaultsError` where nothing is measured.
    """
    batch_size = INFERENCE_COSTS[cost]
    rows = table.filter(pc.equal(table["batch_size"], batch_size)).to_pylist()
    if not rows:
        raise FaultsError("inference costs", [unmeasured(cost)])
    return {
        config_id: row["latency_ms"] / batch_size
        for row in sorted(rows, key=lambda row: row["form"] == "merged")  # the last that is told stays
        for config_id in row["config_ids"]
    }
