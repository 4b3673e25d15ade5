"""Mean ranks over tasks, and which methods the tasks do not tell apart: what a critical-difference diagram shows.

Methods are compared in pairs by the exact sign-flip test over tasks with Holm's correction over all pairs, as
everywhere in adaptune. The bar of Nemenyi's test is not drawn: whether it separates two methods depends on which others
are in the sweep (Benavoli, Corani and Mangili 2016, "Should We Really Use Post-Hoc Tests Based on Mean-Ranks?").
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from orchestrator.analysis.configurations import Configuration
from orchestrator.analysis.missing import with_missing
from orchestrator.analysis.reported import method_names
from orchestrator.analysis.shared import shared
from orchestrator.analysis.statistics.significance import holm, sign_flip_test, smallest_p

ALPHA = 0.05
_SEED = 0

_RANKS = pa.schema(
    {
        **dict.fromkeys(("backbone", "method"), pa.string()),
        **dict.fromkeys(("mean_rank", "best_rank", "worst_rank"), pa.float64()),
        "not_told_apart_from": pa.list_(pa.string()),
        "num_tasks": pa.int64(),
        "friedman_p": pa.float64(),
    }
)


def ranks(configurations: Sequence[Configuration], split: str | None = None) -> pa.Table:
    """A row per method, the best first; `Results.ranks` has the columns."""
    data = shared(configurations, split)
    notes = list(data.missing)
    if not data.tasks or len(data.methods) < 2:
        if data.methods and len(data.methods) < 2:
            notes.append("a second method to compare with")
        return with_missing(_RANKS.empty_table(), notes)
    means = data.means()
    ranked = rank_rows(means)
    alike = _not_told_apart(means)
    names = method_names(data.methods)
    friedman = friedman_p(means)
    rows = []
    for place in np.argsort(ranked.mean(axis=0), kind="stable"):
        method = data.methods[place]
        rows.append(
            {
                "backbone": method.backbone,
                "method": method.name,
                "mean_rank": float(ranked[:, place].mean()),
                "best_rank": float(ranked[:, place].min()),
                "worst_rank": float(ranked[:, place].max()),
                "not_told_apart_from": [names[data.methods[other]] for other in np.flatnonzero(alike[place])],
                "num_tasks": len(data.tasks),
                "friedman_p": friedman,
            }
        )
    pairs = len(data.methods) * (len(data.methods) - 1) // 2
    needed = next(number for number in itertools.count(2) if smallest_p(number) * pairs <= ALPHA)
    if len(data.tasks) < needed:
        notes.append(
            f"tasks: with fewer than {needed} no two of {len(data.methods)} methods can be told apart at {ALPHA:g}, "
            f"and these are {len(data.tasks)}"
        )
    return with_missing(pa.Table.from_pylist(rows, schema=_RANKS), notes)


def rank_rows(means: np.ndarray) -> np.ndarray:
    """The rank of each method on each task, of `(num_tasks, num_methods)` scores: 1 is the highest, ties share."""
    above = (means[:, None, :] > means[:, :, None]).sum(axis=2)
    level = (means[:, None, :] == means[:, :, None]).sum(axis=2)
    return np.asarray(above + (level + 1) / 2, dtype=np.float64)


def friedman_p(means: np.ndarray) -> float | None:
    """The p-value of Friedman's test that all methods rank alike; None below three methods or two tasks."""
    num_tasks, num_methods = means.shape
    if num_methods < 3 or num_tasks < 2 or (means == means[:, :1]).all():
        return None
    from scipy.stats import friedmanchisquare

    return float(friedmanchisquare(*means.T).pvalue)


def _not_told_apart(means: np.ndarray) -> np.ndarray:
    """`(num_methods, num_methods)`: whether the tasks leave it open which of two methods is better."""
    pairs = list(itertools.combinations(range(means.shape[1]), 2))
    rng = np.random.default_rng(_SEED)
    found = [sign_flip_test(means[:, first] - means[:, second], rng=rng).p_value for first, second in pairs]
    alike = np.zeros((means.shape[1], means.shape[1]), dtype=bool)
    for (first, second), p_value in zip(pairs, holm(found), strict=True):
        alike[first, second] = alike[second, first] = p_value > ALPHA
    return alike
