"""Scores that can be set side by side: of the methods, on the tasks that all of them have completed."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from orchestrator.analysis.configurations import Configuration
from orchestrator.analysis.reported import Method, Reported, gaps, method_names, methods_of, reported, tasks_of
from orchestrator.analysis.text import wording


@dataclass(frozen=True, kw_only=True)
class Shared:
    """What each method's chosen configuration scored on each task that all methods share, higher being better."""

    tasks: tuple[str, ...]
    methods: tuple[Method, ...]
    found: Mapping[tuple[str, Method], Reported]
    missing: tuple[str, ...]

    def scores(self, task: str, method: Method) -> np.ndarray:
        """Of each seed, `(num_seeds,)`; negative of a metric where lower is better."""
        speaker = self.found[task, method]
        return speaker.sign * np.array(speaker.score.scores)

    def means(self) -> np.ndarray:
        """`(num_tasks, num_methods)` means over seeds."""
        # Those of the summaries, whose sums are correctly rounded: equal scores tie, in whichever order they stand.
        found = [[self.found[task, method] for method in self.methods] for task in self.tasks]
        rows = [[one.sign * one.score.mean for one in row] for row in found]
        return np.array(rows).reshape(len(self.tasks), len(self.methods))


def shared(configurations: Sequence[Configuration], split: str | None = None) -> Shared:
    """Of the methods and tasks that `comparable` chooses; what had to be left out is among the missing."""
    found = reported(configurations, split)
    tasks, methods = tasks_of(configurations), methods_of(configurations)
    common, kept, notes = comparable(found, tasks, methods)
    return Shared(
        tasks=tuple(common), methods=tuple(kept), found=found, missing=(*gaps(configurations, list(found)), *notes)
    )


def comparable(
    found: Collection[tuple[str, Method]], tasks: Sequence[str], methods: Sequence[Method]
) -> tuple[list[str], list[Method], list[str]]:
    """Tasks and methods of which every pair has been found, and sentences on what is left out.

    Means and ranks over different tasks cannot be compared, so a method that lacks tasks either costs all others those
    tasks or stays out. Of the methods with at least so many tasks, and the tasks that all of these have, those are
    taken that leave most pairs; of equally many, those with more methods.
    """
    counts = {method: sum((task, method) in found for task in tasks) for method in methods}
    best: tuple[int, int, list[str], list[Method]] = (0, 0, [], [])
    for least in sorted({count for count in counts.values() if count}):
        kept = [method for method in methods if counts[method] >= least]
        common = [task for task in tasks if all((task, method) in found for method in kept)]
        if (len(common) * len(kept), len(kept)) > best[:2]:
            best = len(common) * len(kept), len(kept), common, kept
    _, _, common, kept = best
    names = method_names(methods)
    notes = [
        f"{names[method]} is left out: it has completed on {counts[method]} of {wording.plural(len(tasks), 'task')}"
        for method in methods
        if method not in kept
    ]
    if kept and len(common) < len(tasks):
        absent = ", ".join(task for task in tasks if task not in common)
        notes.append(f"so over {wording.plural(len(common), 'task')}, without {absent}")
    return common, kept, notes
