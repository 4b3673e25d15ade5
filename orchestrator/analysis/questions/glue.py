"""The GLUE score of Wang et al. 2019, as the benchmark's server computes it, of what a sweep measured on validation.

The server averages nine tasks (WNLI among them), each of which is the mean of its metrics: F1 and accuracy of MRPC and
QQP, Pearson and Spearman of STS-B, matched and mismatched accuracy of MNLI. So it is no mean of the columns that
papers print. It is stated in points, 0 to 100, as the server does.

GLUE keeps its test labels to itself, so this is the score on validation, on which settings are selected too: it is
optimistic, and not to be held against a leaderboard.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from orchestrator.analysis.configurations import Configuration, contenders, group_by
from orchestrator.analysis.statistics import intervals
from orchestrator.record import TrialStatus

# What each task is the mean of, by the names of `trainables.metrics`; in the order in which papers print them.
COMPONENTS: Mapping[str, tuple[str, ...]] = {
    "cola": ("matthews_correlation",),
    "sst2": ("accuracy",),
    "mrpc": ("f1", "accuracy"),
    "stsb": ("pearson", "spearman"),
    "qqp": ("f1", "accuracy"),
    "mnli": ("accuracy", "mismatched_accuracy"),
    "qnli": ("accuracy",),
    "rte": ("accuracy",),
    "wnli": ("accuracy",),
}
SCORES = {
    "glue_score": pa.float64(),
    "mean_of_present": pa.float64(),
    "num_tasks": pa.int64(),
    "missing": pa.list_(pa.string()),
    "mnli_is_matched_only": pa.bool_(),
    "num_seeds": pa.int64(),
    **dict.fromkeys(COMPONENTS, pa.float64()),
}


def task_score(task: str, measured: Mapping[str, float | None]) -> float | None:
    """A task's part of the GLUE score: the mean of its components, in their unit; None where one was not measured.

    MNLI without its mismatched half is its matched accuracy, of which no GLUE score is made.
    """
    names = COMPONENTS[task]
    if task == "mnli" and measured.get("mismatched_accuracy") is None:
        names = names[:1]
    values = [measured.get(name) for name in names]
    known = [value for value in values if value is not None]
    return intervals.mean(known) if len(known) == len(values) else None


def glue_score(scores: Mapping[str, float]) -> float | None:
    """The unweighted mean of the nine tasks' scores, in their unit; None unless all nine are there."""
    return intervals.mean([scores[task] for task in COMPONENTS]) if COMPONENTS.keys() <= scores.keys() else None


def glue_task(task: str) -> str | None:
    """Which GLUE task a task is by the last part of its name: `glue/cola`, a folder `cola`, `data/cola`."""
    name = task.rstrip("/").rpartition("/")[2]
    return name if name in COMPONENTS else None


def glue_table(trials: pa.Table, configurations: Sequence[Configuration]) -> pa.Table:
    """A row per backbone and method with a GLUE task completed and so measured; see `Results.glue_score`."""
    of_glue = [c for c in configurations if glue_task(c.task)]
    rows = []
    for (backbone, method), group in group_by(of_glue, ["backbone", "method"]).items():
        chosen: dict[str, Configuration] = {}
        for (name,), candidates in group_by(group, ["task"]).items():
            task = glue_task(name) or name
            # Of two tasks that go by the same name, the benchmark's own counts.
            if (ranked := contenders(candidates)) and (task not in chosen or name == f"glue/{task}"):
                chosen[task] = ranked[0]
        if (scores := _score(trials, chosen))["num_tasks"]:
            rows.append({"backbone": backbone, "method": method, **scores})
    schema = pa.schema({"backbone": pa.string(), "method": pa.string(), **SCORES})
    return pa.Table.from_pylist(rows, schema=schema)


def _score(trials: pa.Table, chosen: Mapping[str, Configuration]) -> dict[str, Any]:
    """A method's scores in points, from the configuration chosen for each task."""
    measured = {task: _components(trials, configuration.config_id, task) for task, configuration in chosen.items()}
    points = {task: 100 * score for task, values in measured.items() if (score := task_score(task, values)) is not None}
    seeds = [chosen[task].validation for task in points]
    is_half = "mnli" in points and measured["mnli"]["mismatched_accuracy"] is None
    return {
        "glue_score": None if is_half else glue_score(points),
        "mean_of_present": intervals.mean(list(points.values())) if points else None,
        "num_tasks": len(points),
        "missing": [task for task in COMPONENTS if task not in points] + ["mnli mismatched"] * is_half,
        "mnli_is_matched_only": is_half if "mnli" in points else None,
        "num_seeds": min((estimate.num_seeds for estimate in seeds if estimate), default=None),
        **points,
    }


def _components(trials: pa.Table, config_id: str, task: str) -> dict[str, float | None]:
    """The mean over completed seeds of each component that the task's part consists of; None of one not measured."""
    completed = pc.equal(trials["status"], TrialStatus.COMPLETED.value)
    own = trials.filter(pc.and_(completed, pc.equal(trials["config_id"], config_id)))
    means: dict[str, float | None] = {}
    for name in COMPONENTS[task]:
        column = f"validation/{name}"
        values = own[column].drop_null().to_pylist() if column in own.column_names else []
        means[name] = intervals.mean(values) if values else None
    return means
