"""Performance profiles: for every loss one may accept, on how large a share of the runs a method stays within it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from orchestrator.analysis.configurations import Configuration
from orchestrator.analysis.missing import with_missing
from orchestrator.analysis.shared import shared
from orchestrator.analysis.statistics.aggregates import performance_profile
from orchestrator.analysis.statistics.resampling import bootstrap
from orchestrator.analysis.text import wording

NUM_THRESHOLDS = 201
NUM_RESAMPLES = 500
_SEED = 0

_PROFILE = pa.schema(
    {
        **dict.fromkeys(("backbone", "method"), pa.string()),
        **dict.fromkeys(("threshold", "share", "share_low", "share_high"), pa.float64()),
        **dict.fromkeys(("num_tasks", "num_seeds", "num_folds"), pa.int64()),
    }
)


def profile(configurations: Sequence[Configuration], split: str | None = None) -> pa.Table:
    """A row per method and threshold; `Results.profile` has the columns and the definition."""
    data = shared(configurations, split)
    if not data.tasks:
        return with_missing(_PROFILE.empty_table(), data.missing)
    best = data.means().max(axis=1)
    relative = {
        method: [data.scores(task, method) - top for task, top in zip(data.tasks, best, strict=True)]
        for method in data.methods
    }
    every = np.concatenate([run for runs in relative.values() for run in runs])
    room = max(1e-6, 0.02 * float(np.ptp(every)))
    thresholds = np.linspace(every.min() - room, every.max() + room, NUM_THRESHOLDS)
    columns: dict[str, list[object]] = {name: [] for name in _PROFILE.names}
    for method, runs in relative.items():
        share = performance_profile(runs, thresholds)
        low, high = _band(runs, thresholds)
        columns["backbone"] += [method.backbone] * NUM_THRESHOLDS
        columns["method"] += [method.name] * NUM_THRESHOLDS
        columns["threshold"] += thresholds.tolist()
        columns["share"] += share.tolist()
        columns["share_low"] += low
        columns["share_high"] += high
        columns["num_tasks"] += [len(runs)] * NUM_THRESHOLDS
        columns["num_seeds"] += [min(map(len, runs))] * NUM_THRESHOLDS
        folds = wording.most_folds(data.found[task, method].score.num_folds for task in data.tasks)
        columns["num_folds"] += [folds] * NUM_THRESHOLDS
    return with_missing(pa.table(columns, schema=_PROFILE), data.missing)


def _band(runs: Sequence[np.ndarray], thresholds: np.ndarray) -> tuple[list[float | None], list[float | None]]:
    """The middle 95 % of the profile over resamples of each task's seeds; unknown where no task has two."""
    if max(map(len, runs)) < 2:
        return [None] * len(thresholds), [None] * len(thresholds)
    drawn = bootstrap(
        runs,
        lambda tasks: performance_profile(tasks, thresholds),  # type: ignore[arg-type, return-value]
        rng=np.random.default_rng(_SEED),
        num_resamples=NUM_RESAMPLES,
    )
    low, high = np.quantile(drawn, [0.025, 0.975], axis=0)
    return low.tolist(), high.tolist()
