"""Which hyperparameters the score of a method depends on, over all tasks or on one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from orchestrator.analysis.configurations import Configuration, group_by, higher_is_better
from orchestrator.analysis.missing import with_missing
from orchestrator.analysis.reported import Method, method_names, methods_of
from orchestrator.analysis.statistics.importance import importance as fanova
from orchestrator.analysis.text import wording

_FEWEST = 4  # configurations; a forest of fewer says nothing
NUM_TREES = 32

_IMPORTANCE = pa.schema(
    {
        **dict.fromkeys(("backbone", "method", "task", "hyperparameter"), pa.string()),
        **dict.fromkeys(("importance", "spread"), pa.float64()),
        **dict.fromkeys(("num_configs", "num_tasks", "num_seeds", "num_folds"), pa.int64()),
    }
)


def importance(configurations: Sequence[Configuration], names: Sequence[str], task: str | None = None) -> pa.Table:
    """A row per method and hyperparameter, `names` being those to ask of; `Results.importance` has the columns."""
    rows: list[dict[str, Any]] = []
    notes: list[str] = []
    called = method_names(methods_of(configurations))
    own = [c for c in configurations if c.validation is not None and task in (None, c.task)]
    for (backbone, method), group in group_by(own, ["backbone", "method"]).items():
        name = called[Method(backbone, method)]
        covered, scores = _comparable(group)
        values = {each: [c.hyperparameters.get(each) for c in covered] for each in names}
        varying = {each: column for each, column in values.items() if len(set(column)) > 1}
        if len(varying) < 2:
            notes.append(
                f"{name}: {f'only {next(iter(varying))}' if varying else 'nothing'} varies, so nothing to share"
            )
            continue
        if len(covered) < len(group):
            notes.append(f"{name}: {len(group) - len(covered)} of {len(group)} configurations, which have fewer seeds")
        if len(covered) < _FEWEST:
            notes.append(f"{name}: {len(covered)} configurations with equal seeds, of at least {_FEWEST}")
            continue
        if not np.ptp(scores, axis=1).any():
            notes.append(f"{name}: every configuration scored the same, so nothing to share")
            continue
        for found in fanova(varying, scores, num_trees=NUM_TREES):
            rows.append(
                {
                    **{"backbone": backbone, "method": method, "task": task, "hyperparameter": found.name},
                    **{"importance": found.mean, "spread": found.spread, "num_configs": len(covered)},
                    "num_tasks": len({c.task for c in covered}),
                    "num_seeds": len(scores),
                    "num_folds": wording.most_folds(c.validation.num_folds for c in covered if c.validation),
                }
            )
    return with_missing(pa.Table.from_pylist(rows, schema=_IMPORTANCE), notes)


def _comparable(group: Sequence[Configuration]) -> tuple[list[Configuration], np.ndarray]:
    """The configurations with most seeds, and `(num_seeds, num_configs)` scores that compare across tasks.

    Each task's scores, higher being better, have mean 0 and variance 1, so that every task counts the same.
    """
    most = max(c.validation.num_seeds for c in group if c.validation)
    covered = [c for c in group if c.validation and c.validation.num_seeds == most]
    scores = np.array([c.validation.scores for c in covered if c.validation]).T
    scores = scores * np.array([1 if higher_is_better(c.metric) else -1 for c in covered])
    tasks = np.array([c.task for c in covered])
    for task in np.unique(tasks):
        own = scores[:, tasks == task]
        # Of equal scores the mean may be off in its last digit, which is no spread to divide by.
        scores[:, tasks == task] = (own - own.mean()) / own.std() if np.ptp(own) > 0 else 0.0
    return covered, scores
