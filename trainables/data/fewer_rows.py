"""A task with at most so many rows a split, drawn at random by a fixed seed: the same rows on every machine."""

from __future__ import annotations

import dataclasses

import numpy as np
import pyarrow as pa

from trainables.task import Task, fingerprint

_SEED = 0


def fewer_rows(task: Task, *, train: int | None, evaluation: int | None) -> Task:
    """At most `train` rows of train and `evaluation` of every other split, in the order they stand in; None keeps all.

    The rows that go are those with the highest numbers of a Philox stream, as in `trainables.data.splitting`. A task
    that is small enough is given back as it is.
    """
    most = {split: train if split == "train" else evaluation for split in task.splits}
    splits = {split: _cut(table, most[split]) for split, table in task.splits.items()}
    if all(splits[split] is table for split, table in task.splits.items()):
        return task
    return dataclasses.replace(task, splits=splits, fingerprint=fingerprint(task.info, splits))


def _cut(table: pa.Table, most: int | None) -> pa.Table:
    if most is None or table.num_rows <= most:
        return table
    order = np.argsort(np.random.Philox(key=_SEED).random_raw(table.num_rows), kind="stable")
    return table.take(pa.array(np.sort(order[:most])))
