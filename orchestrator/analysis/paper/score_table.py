"""Table 2 of Houlsby et al. 2019: what each method scores on each task, mean and standard error, and the average."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa

from orchestrator.analysis.configurations import Configuration, higher_is_better
from orchestrator.analysis.missing import with_missing
from orchestrator.analysis.reported import Method, Reported, gaps, methods_of, reported, tasks_of
from orchestrator.analysis.shared import comparable
from orchestrator.analysis.statistics import intervals
from orchestrator.analysis.text import wording

_SCORES = pa.schema(
    {
        **dict.fromkeys(("task", "backbone", "method", "config_id", "metric", "split"), pa.string()),
        **dict.fromkeys(("score", "score_sem"), pa.float64()),
        **dict.fromkeys(("num_seeds", "num_folds", "num_configs_tried", "num_tasks"), pa.int64()),
        "is_best": pa.bool_(),
    }
)


def score_table(configurations: Sequence[Configuration], split: str | None = None) -> pa.Table:
    """A row per task and method, then the averages; `Results.score_table` has the columns."""
    found = reported(configurations, split)
    tasks, methods = tasks_of(configurations), methods_of(configurations)
    rows: list[dict[str, Any]] = []
    for task in tasks:
        own = [_row(task, method, found.get((task, method))) for method in methods]
        metric = next((row["metric"] for row in own if "metric" in row), None)
        rows += _mark_best(own, higher_is_better(metric))
    notes = gaps(configurations, list(found))
    if found and len(tasks) > 1:
        averages, note = _averages(tasks, methods, found)
        rows += averages
        notes += note
    return with_missing(pa.Table.from_pylist(rows, schema=_SCORES), notes)


def _row(task: str, method: Method, speaker: Reported | None) -> dict[str, Any]:
    row: dict[str, Any] = {"task": task, "backbone": method.backbone, "method": method.name, "num_tasks": 1}
    if speaker is None:
        return row
    return row | {
        "config_id": speaker.configuration.config_id,
        "metric": speaker.configuration.metric,
        "split": speaker.split,
        "score": speaker.score.mean,
        "score_sem": speaker.score.sem,
        "num_seeds": speaker.score.num_seeds,
        "num_folds": speaker.score.num_folds,
        "num_configs_tried": speaker.num_configs_tried,
    }


def _averages(
    tasks: Sequence[str], methods: Sequence[Method], found: Mapping[tuple[str, Method], Reported]
) -> tuple[list[dict[str, Any]], list[str]]:
    """The mean over the tasks that the methods share, since means over different tasks cannot be compared."""
    shared, kept, notes = comparable(found, tasks, methods)
    metrics = {found[task, method].configuration.metric for task in shared for method in kept}
    if len({higher_is_better(metric) for metric in metrics}) > 1:
        return [], ["average: some tasks are better with a higher score and some with a lower one"]
    rows = []
    for method in kept:
        own = [found[task, method] for task in shared]
        errors = [one.score.sem for one in own]
        known = [error for error in errors if error is not None]
        rows.append(
            {
                "backbone": method.backbone,
                "method": method.name,
                "metric": next(iter(metrics)) if len(metrics) == 1 else None,
                "split": own[0].split if len({one.split for one in own}) == 1 else None,
                "score": intervals.mean([one.score.mean for one in own]),
                "score_sem": math.hypot(*known) / len(own) if len(known) == len(errors) else None,
                "num_seeds": min(one.score.num_seeds for one in own),
                "num_folds": wording.most_folds(one.score.num_folds for one in own),
                "num_configs_tried": sum(one.num_configs_tried for one in own),
                "num_tasks": len(own),
            }
        )
    return _mark_best(rows, higher_is_better(next(iter(metrics), None))), [f"average: {note}" for note in notes]


def _mark_best(rows: list[dict[str, Any]], higher: bool) -> list[dict[str, Any]]:
    """Whether a row's score is the best of these. Equal scores are all best."""
    scores = [row["score"] for row in rows if row.get("score") is not None]
    best = (max if higher else min)(scores) if scores else math.nan
    return [{**row, "is_best": row.get("score") == best} for row in rows]
