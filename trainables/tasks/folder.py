"""Task folders: your own data as train, validation and optionally test files.

Each split is one `.parquet`, `.csv`, `.tsv` or `.jsonl` with columns `text_a`, optional `text_b`, and `label`; other
names and formats are found where only one reading is possible (docs/data.md). An optional `task.json` names the task,
its kind (classification, regression or multilabel), pair, num_labels, label_names and metric, and how its files are to
be read; what it leaves out is inferred from them. Files `.json` in the format of SQuAD v1.1, also under their official
names, are a task of extractive question answering. Further splits to evaluate the final model on are called
`validation_<name>` and `test_<name>`. One file `all` instead of splits is cut into 80/10/10 by a fixed seed. A folder
may lie elsewhere, at a URI that `trainables.data.remote` fetches.
"""

from __future__ import annotations

import dataclasses
import functools
from pathlib import Path

from trainables.data import remote
from trainables.data.files import load_folder
from trainables.task import Task, TaskInfo


def names() -> tuple[str, ...]:
    """Any folder can be a task, so none is known by name."""
    return ()


def describe(folder: str) -> TaskInfo:
    """The facts of a task folder. Reads it, since what task.json leaves out is in the rows."""
    return load(folder).info


def load(folder: str) -> Task:
    """Read and check a task folder. Raises `FaultsError` with all its faults."""
    if not remote.is_remote(folder):
        return load_folder(Path(folder))
    fetched = remote.fetch(folder)
    return _from(load_folder(fetched), str(fetched.resolve()), folder)


@functools.lru_cache(maxsize=64)
def _from(task: Task, local: str, folder: str) -> Task:
    """A task that says where it was fetched from: one value as long as its files are the same, as of a local folder."""
    source = task.info.source.replace(local, folder.partition("?")[0])
    return dataclasses.replace(task, info=dataclasses.replace(task.info, source=source))
