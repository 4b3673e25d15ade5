"""What is worth its cost: the configurations that no other beats at the same or a lower cost."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc

from orchestrator.analysis.configurations import higher_is_better
from orchestrator.analysis.missing import with_missing
from orchestrator.analysis.questions.front import without_price
from orchestrator.analysis.statistics.pareto import pareto_front

COST_COLUMNS = ("trained_params", "trained_params_without_head", "total_params", "duration_s")


def trade_off(tried: pa.Table, cost: str) -> pa.Table:
    """A row per configuration of `Results.tried`, with its `cost` and whether it is on the front of its task.

    `Results.trade_off` has the columns. Those with fewer seeds than the best-covered one of their task do not compete.
    Raises `FaultsError` where no configuration has a known cost.
    """
    known = tried.filter(pc.is_valid(tried[cost]))
    notes = without_price("trade_off", cost, priced=len(known), unpriced=len(tried) - len(known))
    rows = known.to_pylist()
    by_task: dict[str, list[int]] = {}
    for index, row in enumerate(rows):
        by_task.setdefault(row["task"], []).append(index)
    on_front = [False] * len(rows)
    for own in by_task.values():
        coverage = max(rows[index]["num_seeds"] for index in own)
        covered = [index for index in own if rows[index]["num_seeds"] == coverage]
        sign = 1 if higher_is_better(rows[own[0]]["metric"]) else -1
        scores = [sign * rows[index]["validation_mean"] for index in covered]
        front = pareto_front([rows[index][cost] for index in covered], scores)
        for index, is_on in zip(covered, front, strict=True):
            on_front[index] = bool(is_on)
    table = known.append_column("cost", pc.cast(known[cost], pa.float64()))
    table = table.append_column("cost_name", pa.array([cost] * len(rows), pa.string()))
    table = table.append_column("is_on_front", pa.array(on_front, pa.bool_()))
    first = ["task", "backbone", "method", "config_id", "metric", "cost_name", "cost", "is_on_front"]
    table = table.select([*first, *(name for name in table.column_names if name not in first)])
    order = [("task", "ascending"), ("cost", "ascending"), ("config_id", "ascending")]
    return with_missing(table.sort_by(order), notes)
