"""What was spent: how many settings and how much engine time each method had on each task."""

from __future__ import annotations

import pyarrow as pa

from orchestrator.analysis.configurations import engine_seconds
from orchestrator.analysis.text import wording
from orchestrator.record import TrialStatus

_STATUSES = (TrialStatus.COMPLETED, TrialStatus.PRUNED, TrialStatus.FAILED, TrialStatus.CANCELLED)
SCHEMA = pa.schema(
    [
        *((name, pa.string()) for name in ("task", "backbone", "method")),
        *((name, pa.int64()) for name in ("num_configs", "num_seeds", "num_folds", "num_trials")),
        *((f"num_{status.value}", pa.int64()) for status in _STATUSES),
        ("engine_seconds", pa.float64()),
    ]
)


def budget(trials: pa.Table) -> pa.Table:
    """A row per task, backbone and method: what was tried and what it took.

    Columns: task, backbone, method; num_configs, distinct configurations; num_seeds, distinct seeds, and num_folds,
    distinct folds, null where there are none; num_trials, and
    how many of them ended in each status; engine_seconds, the sum of duration_s / pack_size: trials that train together
    share their engine, so each counts for its part. Null where no duration was measured.
    """
    names = ["task", "backbone", "method", "config_id", "seed", "fold", "status"]
    spent = pa.array(engine_seconds(trials), from_pandas=True)  # null where it is not measured
    groups: dict[tuple[str, str, str], list[dict[str, object]]] = {}
    for row in trials.select(names).append_column("seconds", spent).to_pylist():
        groups.setdefault((row["task"], row["backbone"], row["method"]), []).append(row)
    return pa.Table.from_pylist([_row(key, groups[key]) for key in sorted(groups)], schema=SCHEMA)


def _row(key: tuple[str, str, str], rows: list[dict[str, object]]) -> dict[str, object]:
    seconds = [float(row["seconds"]) for row in rows if isinstance(row["seconds"], float)]
    statuses = [row["status"] for row in rows]
    return {
        **dict(zip(("task", "backbone", "method"), key, strict=True)),
        "num_configs": len({row["config_id"] for row in rows}),
        "num_seeds": len({row["seed"] for row in rows}),
        "num_folds": len({row["fold"] for row in rows} - {None}) or None,
        "num_trials": len(rows),
        **{f"num_{status.value}": statuses.count(status.value) for status in _STATUSES},
        "engine_seconds": sum(seconds) if seconds else None,
    }


def sentences(budget: pa.Table) -> list[str]:
    """Whether methods had the same budget, in words. One that tried more had more chances to look good."""
    rows = budget.to_pylist()
    if len({row["method"] for row in rows}) < 2:
        return []
    configs: dict[str, list[int]] = {}
    tasks: dict[str, set[str]] = {}
    seconds: dict[str, float] = {}
    for row in rows:
        configs.setdefault(row["method"], []).append(row["num_configs"])
        tasks.setdefault(row["method"], set()).add(row["task"])
        seconds[row["method"]] = seconds.get(row["method"], 0.0) + (row["engine_seconds"] or 0.0)
    everywhere = set[str]().union(*tasks.values())
    fewest = {method: min(numbers) if tasks[method] == everywhere else 0 for method, numbers in configs.items()}
    tried = {method: (fewest[method], max(numbers)) for method, numbers in configs.items()}
    least, most = min(tried, key=lambda m: (tried[m], m)), max(tried, key=lambda m: (tried[m], m))
    said = []
    if tried[least] == tried[most]:
        said.append(f"Every method tried {_span(*tried[most], 'setting')} on each task.")
    else:
        said.append(
            f"Methods did not have the same budget: {most} tried {_span(*tried[most], 'setting')} on each task, "
            f"{least} {_span(*tried[least], 'setting')}. The best of many tries looks better than the best of few, "
            "so a gap between their best scores is partly a gap in tries."
        )
    if seconds and (low := min(seconds, key=lambda m: (seconds[m], m))) != (
        high := max(seconds, key=lambda m: seconds[m])
    ):
        said.append(
            f"In engine time {high} took most, {wording.duration(seconds[high])}, and {low} least, "
            f"{wording.duration(seconds[low])}."
        )
    return said


def _span(low: int, high: int, noun: str) -> str:
    return wording.plural(high, noun) if low == high else f"{low:,} to {wording.plural(high, noun)}"
