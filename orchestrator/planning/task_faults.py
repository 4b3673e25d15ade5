"""What is wrong with a sweep's tasks, and what of them cannot be had here."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from orchestrator.spec.spec import SweepSpec
from trainables.faults import FaultsError

if TYPE_CHECKING:
    from trainables.estimate.preview import TaskPreview


def preview_tasks(spec: SweepSpec) -> tuple[dict[str, TaskPreview], list[str]]:
    """What is known of each task, by its reference, and the faults of those of which nothing is."""
    from trainables.estimate.preview import preview_task

    tasks, faults = {}, []
    for reference in spec.tasks:
        try:
            tasks[reference] = preview_task(reference)
        except FaultsError as error:
            faults += [f"task {reference}: {fault}" for fault in error.faults]
    return tasks, faults


def missing_data(tasks: Mapping[str, TaskPreview]) -> list[str]:
    """Why data cannot be had, said once for all tasks it is true of."""
    by_reason: dict[str, list[str]] = {}
    for reference, task in tasks.items():
        for reason in task.missing:
            by_reason.setdefault(reason, []).append(reference)
    return [
        f"task{'s' if len(references) > 1 else ''} {', '.join(references)}: {reason}"
        for reason, references in by_reason.items()
    ]


def clashes(tasks: Mapping[str, TaskPreview]) -> list[str]:
    """Tasks that a table could not tell apart, or whose trials would be the same by content."""
    by_name: dict[str, list[str]] = {}
    by_content: dict[str, list[str]] = {}
    for reference, task in tasks.items():
        by_name.setdefault(task.info.name, []).append(reference)
        if task.fingerprint:
            by_content.setdefault(task.fingerprint, []).append(reference)
    same_name = [
        f"tasks: every task must have a name of its own, but {' and '.join(references)} are all called {name!r}"
        for name, references in by_name.items()
        if len(references) > 1
    ]
    same_rows = [
        f"tasks: every task must have rows of its own, but {' and '.join(references)} hold the same"
        for references in by_content.values()
        if len(references) > 1
    ]
    return same_name + same_rows
