"""What must be said of results where tasks were cut into folds."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from orchestrator.analysis.configurations import told_folds
from orchestrator.analysis.statistics.significance import MOST_EXACT
from orchestrator.analysis.text import wording

TOO_SMALL = (
    "Any two folds share rows that they train on, so a standard error over folds is too small (Bengio and Grandvalet "
    "2004); intervals over folds are widened as Nadeau and Bengio (2003) propose."
)


def folds_of(trials: pa.Table) -> dict[str, int]:
    """Into how many folds each task is cut, of those that are, as far as their trials show it."""
    number = pa.array(np.fmax(trials["fold"].cast(pa.float64()).to_numpy() + 1, told_folds(trials)), from_pandas=True)
    own = trials.select(["task"]).append_column("number", number).filter(pc.is_valid(trials["fold"]))
    found = own.group_by("task").aggregate([("number", "max")]).to_pylist()
    return {row["task"]: int(row["number_max"]) for row in sorted(found, key=lambda row: row["task"])}


def sentence(folds: Mapping[str, int]) -> str:
    """How the folds were made, where there are any."""
    cut = (
        "train and validation rows were put together and cut into folds, each validated on once by a model trained on "
        "the others, equal texts in one fold and classes spread evenly; every model was scored on the same test rows"
    )
    return f"{_each(folds)}: {cut}."


def each_fold(trials: pa.Table) -> str:
    """To follow what a configuration was trained with; empty where there are no folds."""
    folds = folds_of(trials)
    if not folds:
        return ""
    if len(set(folds.values())) == 1 and set(folds) == set(trials["task"].to_pylist()):
        return f" on each of {wording.plural(next(iter(folds.values())), 'fold')}"
    return " on each fold of a task that has folds"


def intervals(trials: pa.Table) -> str:
    """How scores and their spread are given where some tasks have folds."""
    several = pc.count_distinct(trials["task"]).as_py() > 1
    some = (
        "" if set(folds_of(trials)) == set(trials["task"].to_pylist()) else ", or over seeds where there are no folds,"
    )
    return (
        f"Scores are means over all seeds and folds{some} with the standard error of the mean (sample standard "
        "deviation, ddof = 1, over the square root of their number). Any two folds share rows that they train on, so "
        "this standard error is too small, and there is no unbiased one (Bengio and Grandvalet, 2004). Differences "
        "between methods on a task have 95 % intervals over the pairs of the same fold, each a mean over seeds, with "
        "the variance of the corrected resampled t-test (Nadeau and Bengio, 2003)"
        + ("; over seeds they are Welch's." if some else ".")
        + (f" Across tasks intervals are Student's over the tasks' differences; {p_values(trials)}" if several else "")
    )


def p_values(trials: pa.Table) -> str:
    """Which test over tasks p-values are of."""
    number = pc.count_distinct(trials["task"]).as_py()
    test = "exact sign-flip test over tasks"
    if number > MOST_EXACT:
        test = "sign-flip test over tasks, with 100,000 assignments of signs drawn at random,"
    return f"p-values are of the {test} with Holm's correction over the methods compared."


def _each(folds: Mapping[str, int]) -> str:
    by_number: dict[int, list[str]] = {}
    for task, number in folds.items():
        by_number.setdefault(number, []).append(task)
    said = [f"{wording.plural(number, 'fold')} of {', '.join(tasks)}" for number, tasks in sorted(by_number.items())]
    return f"There were {' and '.join(said)}"
