"""What each node of a cluster trained, from the records alone."""

from __future__ import annotations

import pyarrow as pa

SCHEMA = pa.schema(
    [
        ("node", pa.string()),
        ("num_engines", pa.int64()),
        ("num_trials", pa.int64()),
        ("trials_share", pa.float64()),
        ("duration_s", pa.float64()),
    ]
)


def node_shares(trials: pa.Table) -> pa.Table:
    """A row per node that trained any of the trials, by its host name, the one that trained most first.

    Columns: node; num_engines, devices of it that trials name; num_trials with a record of any status; trials_share,
    those over all trials that name an engine, 0 to 1; duration_s, the sum over its trials in seconds, of which those in
    one pack overlap.
    """
    trained: dict[str, list[tuple[str, float]]] = {}
    for engine, duration_s in zip(trials["engine"].to_pylist(), trials["duration_s"].to_pylist(), strict=True):
        if engine is not None:
            trained.setdefault(engine.rpartition("/")[0], []).append((engine, duration_s or 0.0))
    total = sum(map(len, trained.values()))
    rows = [
        {
            "node": node,
            "num_engines": len({engine for engine, _ in found}),
            "num_trials": len(found),
            "trials_share": len(found) / total,
            "duration_s": sum(duration_s for _, duration_s in found),
        }
        for node, found in sorted(trained.items(), key=lambda item: (-len(item[1]), item[0]))
    ]
    return pa.Table.from_pylist(rows, schema=SCHEMA)
