"""How fast the engines trained, from the records alone."""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa

SCHEMA = pa.schema(
    [
        ("engine", pa.string()),
        ("backbone", pa.string()),
        ("method", pa.string()),
        ("num_trials", pa.int64()),
        ("pack_size", pa.float64()),
        ("examples_per_second", pa.float64()),
        ("pack_examples_per_second", pa.float64()),
    ]
)


def throughput(trials: pa.Table) -> pa.Table:
    """A row per engine, backbone and method, of the trials whose rate was measured.

    Columns: engine, backbone, method, num_trials; the means over these trials of pack_size (trials that trained
    together), of examples_per_second (of one trial, in training), and of pack_examples_per_second, their product: what
    the engine trained a second, of all the pack.
    """
    groups: dict[tuple[str, str, str], list[tuple[float, float]]] = {}
    names = ("engine", "backbone", "method", "pack_size", "examples_per_second")
    columns = (trials[name].to_pylist() for name in names)
    for engine, backbone, method, size, rate in zip(*columns, strict=True):
        if rate is not None and engine is not None:
            found = groups.setdefault((engine, backbone, method), [])
            found.append((size or 1.0, rate))  # records of old know no packs
    rows = [
        {
            "engine": engine,
            "backbone": backbone,
            "method": method,
            "num_trials": len(measured),
            "pack_size": _mean([size for size, _ in measured]),
            "examples_per_second": _mean([rate for _, rate in measured]),
            "pack_examples_per_second": _mean([size * rate for size, rate in measured]),
        }
        for (engine, backbone, method), measured in sorted(groups.items())
    ]
    return pa.Table.from_pylist(rows, schema=SCHEMA)


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
