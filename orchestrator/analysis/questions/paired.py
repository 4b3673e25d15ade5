"""How much better or worse a method is than a reference, task by task and over all tasks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa

from orchestrator.analysis import replicates
from orchestrator.analysis.configurations import Configuration, gain
from orchestrator.analysis.missing import with_missing
from orchestrator.analysis.reported import Method, Reported, gaps, method_names, methods_of, reported, tasks_of
from orchestrator.analysis.statistics import intervals
from orchestrator.analysis.statistics.significance import holm, sign_flip_test, smallest_p
from orchestrator.analysis.text import wording

USUAL_REFERENCE = "full_finetuning"
_SEED = 0

_DIFFERENCES = pa.schema(
    {
        **dict.fromkeys(("task", "backbone", "method", "reference", "metric", "split"), pa.string()),
        **dict.fromkeys(("difference", "low", "high"), pa.float64()),
        "num_tasks": pa.int64(),
        "num_seeds": pa.int64(),
        "num_folds": pa.int64(),
        "num_configs_tried": pa.int64(),
        "num_configs_tried_of_reference": pa.int64(),
        **dict.fromkeys(("p_value", "p_holm", "smallest_p"), pa.float64()),
    }
)


def usual_reference(configurations: Sequence[Configuration]) -> str | None:
    """Full fine-tuning where it has completed anywhere, or else the method that has completed on most tasks."""
    found = reported(configurations)
    counts: dict[str, int] = {}
    for _, method in found:
        counts[method.name] = counts.get(method.name, 0) + 1
    if USUAL_REFERENCE in counts:
        return USUAL_REFERENCE
    return min(counts, key=lambda name: (-counts[name], name), default=None)


def paired_differences(
    configurations: Sequence[Configuration], reference: str | None, split: str | None = None
) -> pa.Table:
    """A row per method and task, and one per method over its tasks; `Results.paired_differences` has the columns."""
    found = reported(configurations, split)
    tasks = tasks_of(configurations)
    methods = [m for m in methods_of(configurations) if m.name != reference]
    rows: list[dict[str, Any]] = []
    overall: list[dict[str, Any]] = []
    for method in methods:
        own = []
        for task in tasks:
            ours, theirs = found.get((task, method)), found.get((task, Method(method.backbone, reference or "")))
            if ours and theirs:
                own.append(_difference(ours, theirs))
        rows += own
        if own:
            overall.append(_over_tasks(own))
    if overall:
        for row, adjusted in zip(overall, holm([row["p_value"] for row in overall]), strict=True):
            row["p_holm"] = float(adjusted)
    notes = gaps(configurations, list(found))
    names = method_names(methods)
    for method in methods:
        if any((task, method) in found for task in tasks) and not any(
            row["method"] == method.name and row["backbone"] == method.backbone for row in rows
        ):
            notes.append(f"{names[method]}: no task on which {reference} has completed too")
    if reference is None and configurations:
        notes.append("no method to compare with has completed")
    return with_missing(pa.Table.from_pylist([*rows, *overall], schema=_DIFFERENCES), notes)


def _difference(ours: Reported, theirs: Reported) -> dict[str, Any]:
    difference = gain(ours.score.mean, theirs.score.mean, ours.configuration.metric)
    estimate, _ = replicates.difference(ours.score, theirs.score, ours.sign)
    # Around the difference that is told, from which that of the seeds and folds that both sides have may differ.
    low, high = replace(estimate, mean=difference).interval() if estimate else (None, None)
    return {
        "task": ours.task,
        "backbone": ours.method.backbone,
        "method": ours.method.name,
        "reference": theirs.method.name,
        "metric": ours.configuration.metric,
        "split": ours.split,
        "difference": difference,
        "low": low,
        "high": high,
        "num_tasks": 1,
        "num_seeds": min(ours.score.num_seeds, theirs.score.num_seeds),
        "num_folds": ours.score.num_folds,
        "num_configs_tried": ours.num_configs_tried,
        "num_configs_tried_of_reference": theirs.num_configs_tried,
    }


def _over_tasks(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The mean over tasks, its Student interval over tasks, and the sign-flip test."""
    differences = np.array([row["difference"] for row in rows])
    low, high = intervals.t_interval(differences) or (None, None)
    tested = sign_flip_test(differences, rng=np.random.default_rng(_SEED))
    one = rows[0]
    return {
        **{name: one[name] for name in ("backbone", "method", "reference")},
        "metric": one["metric"] if len({row["metric"] for row in rows}) == 1 else None,
        "split": one["split"] if len({row["split"] for row in rows}) == 1 else None,
        "difference": intervals.mean(differences),
        "low": low,
        "high": high,
        "num_tasks": len(rows),
        "num_seeds": min(row["num_seeds"] for row in rows),
        "num_folds": wording.most_folds(row["num_folds"] for row in rows),
        "num_configs_tried": sum(row["num_configs_tried"] for row in rows),
        "num_configs_tried_of_reference": sum(row["num_configs_tried_of_reference"] for row in rows),
        "p_value": tested.p_value,
        "smallest_p": smallest_p(len(rows)),
    }
