"""Which rows a page shows where it cannot show all: of every task, backbone and method the best by validation first."""

from __future__ import annotations

import pyarrow as pa

from orchestrator.analysis.configurations import higher_is_better


def leading(table: pa.Table, most: int, *, score: str = "validation_score") -> pa.Table:
    """At most so many rows, the best of each task, backbone and method before the second best of any.

    They stay in their own order. `table` has the columns task, backbone, method, metric and `score`; a row without a
    score comes after all that have one.
    """
    if len(table) <= most:
        return table
    ranked = sorted(ranks(table, score=score).items(), key=lambda pair: (pair[1], pair[0]))
    return table.take(pa.array(sorted(index for index, _ in ranked[:most]), pa.int64()))


def ranks(table: pa.Table, *, score: str = "validation_score") -> dict[int, int]:
    """The rank of each row, by its place, among those of its task, backbone and method; 0 is the best."""
    groups: dict[tuple[str, str, str], list[tuple[float, int]]] = {}
    columns = (table[name].to_pylist() for name in ("task", "backbone", "method", "metric", score))
    for index, (task, backbone, method, metric, value) in enumerate(zip(*columns, strict=True)):
        is_scored = value is not None and value == value  # one that diverged has no number
        loss = float("inf") if not is_scored else -value if higher_is_better(metric) else value
        groups.setdefault((task, backbone, method), []).append((loss, index))
    return {index: rank for group in groups.values() for rank, (_, index) in enumerate(sorted(group))}
