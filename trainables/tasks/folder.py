"""Task folders: your own data as train, validation and optionally test files.

Each split is one `.parquet`, `.csv`, `.tsv` or `.jsonl` with columns `text_a`, optional `text_b`, and `label`. An
optional `task.json` names the task, its kind (classification or regression), pair, num_labels, label_names and metric;
what it leaves out is inferred from the train split.
"""

from __future__ import annotations

from pathlib import Path

from trainables.reading.files import load_folder
from trainables.task import Task, TaskInfo


def names() -> tuple[str, ...]:
    """Any folder can be a task, so none is known by name."""
    return ()


def describe(folder: str) -> TaskInfo:
    """The facts of a task folder. Reads it, since what task.json leaves out is in the rows."""
    return load(folder).info


def load(folder: str) -> Task:
    """Read and check a task folder. Raises `FaultsError` with all its faults."""
    return load_folder(Path(folder))
