"""A task's rows cut into k folds, each of which is validated on once while the others are trained on.

What is cut are the rows of train and validation together; test stays as it is, and where there is none a tenth of the
rows is cut off for it first. Which row is in which fold depends on the rows and on their order alone, so it is the same
on every machine and for every trial.

Rows with the same texts, or with texts that differ in capitals, blanks and punctuation alone, are in one fold: a model
would else be validated on what it was trained on. So are questions about the same context.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from trainables.data.same_texts import joined, numbered, plain
from trainables.faults import FaultsError
from trainables.predictions import label_values
from trainables.task import Task, fingerprint, in_order

_SEED = 0
_TESTS = 10  # a tenth of the rows is the test of a task that has none
_KEPT = 64  # tasks and folds of tasks in memory


@dataclass(frozen=True, kw_only=True, eq=False)
class Folding:
    """The rows of a task as they fall into folds."""

    rows: pa.Table  # those of train, then those of validation, less what was cut off for test
    fold: np.ndarray  # int64 (N,), in [0, num_folds): which of them each row is validated in
    num_folds: int
    others: Mapping[str, pa.Table]  # test and further splits, which are the same for every fold
    notes: tuple[str, ...]  # what was done, a sentence each, for people to check

    def rows_by_split(self, fold: int) -> dict[str, int]:
        """How many rows each split of a fold has."""
        validated = int(np.count_nonzero(self.fold == fold))
        others = {split: table.num_rows for split, table in self.others.items()}
        return {"train": self.rows.num_rows - validated, "validation": validated, **others}


@functools.lru_cache(maxsize=_KEPT)
def fold_task(task: Task, num_folds: int) -> Folding:
    """Cut a task into folds.

    The classes of a classification are spread evenly: without texts that stand several times, folds differ by at most
    one row of each class, and by at most one row in all. Scores, and sets of labels, are taken as one class. Raises
    `FaultsError` where there are too few rows.
    """
    rows = pa.concat_tables([task.splits["train"], task.splits["validation"]]).combine_chunks()
    others = {split: table for split, table in task.splits.items() if split not in ("train", "validation")}
    notes = [f"train and validation are put together and cut into {num_folds} folds (seed {_SEED})"]
    groups, classes = _groups(rows, task), _classes(rows, task)
    if "test" not in others:
        if len(np.unique(groups)) < _TESTS:
            raise FaultsError(
                f"task {task.info.name}",
                [
                    f"folds: needs a test of its own or at least {_TESTS} different texts, of which a tenth is cut off "
                    f"for it, but train and validation have {len(np.unique(groups))}"
                ],
            )
        # The last part: the first have the texts that stand most often.
        is_test = assign(groups, classes, _TESTS) == _TESTS - 1
        others["test"] = rows.filter(pa.array(is_test))
        rows, groups, classes = rows.filter(pa.array(~is_test)), groups[~is_test], classes[~is_test]
        notes.append(
            f"test is {int(is_test.sum()):,} rows cut off them before (seed {_SEED}), since there is none of its own"
        )
    if (most := len(np.unique(groups))) < num_folds:
        rule = f"must be at most the number of different texts that are cut, {most}"
        raise FaultsError(f"task {task.info.name}", [f"folds: {rule}, but got {num_folds}"])
    fold = assign(groups, classes, num_folds)
    if faults := _faults(rows, fold, num_folds):
        raise FaultsError(f"task {task.info.name}", faults)
    notes += _rare_classes(task, classes, num_folds)
    splits = {split: others[split] for split in in_order(others)}
    return Folding(rows=rows, fold=fold, num_folds=num_folds, others=splits, notes=tuple(notes))


@functools.lru_cache(maxsize=_KEPT)
def fold_of(task: Task, num_folds: int, fold: int) -> Task:
    """The task that a trial of this fold sees: validation is the fold, train are the others, all in their order.

    Raises `FaultsError` where there is no such fold, or the task cannot be cut so.
    """
    if not 0 <= fold < num_folds:
        rule = f"must be a whole number from 0 to {num_folds - 1}, one less than the number of folds"
        raise FaultsError(f"task {task.info.name}", [f"fold: {rule}, but got {fold}"])
    cut = fold_task(task, num_folds)
    held_out = cut.fold == fold
    splits = {
        "train": cut.rows.filter(pa.array(~held_out)),
        "validation": cut.rows.filter(pa.array(held_out)),
        **cut.others,
    }
    info = dataclasses.replace(task.info, source=f"{task.info.source}, validated on fold {fold} of {num_folds}")
    return dataclasses.replace(
        task, info=info, splits=splits, fingerprint=fingerprint(info, splits), notes=(*task.notes, *cut.notes)
    )


def assign(groups: np.ndarray, classes: np.ndarray, num_parts: int) -> np.ndarray:
    """The part of each row, int64 (N,), so that rows of a group are together and parts have as much of each class.

    Groups of several rows go first, the largest before others, each to the part that has least of its classes, and of
    several such to the smallest. The other rows of a class then fill the parts up to the same number; those that are
    left over go to the smallest parts. Which rows these are is drawn by one number of Philox each, whose stream numpy
    keeps from version to version.

    Args:
        groups: int64 (N,), equal for rows that must be together.
        classes: int64 (N,), the class of each row.
        num_parts: how many.
    """
    draws = np.random.Philox(key=_SEED).random_raw(len(groups))
    parts = np.full(len(groups), -1, np.int64)
    _, of_class = np.unique(classes, return_inverse=True)
    counts = np.zeros((num_parts, int(of_class.max()) + 1), np.int64)  # rows of each class by part
    _, of_group, sizes = np.unique(groups, return_inverse=True, return_counts=True)
    by_group = np.lexsort((draws, of_group))  # the first of a group has its least number
    starts = np.cumsum(sizes) - sizes
    several = np.flatnonzero(sizes > 1)
    for group in several[np.lexsort((draws[by_group[starts[several]]], -sizes[several]))]:
        rows = by_group[starts[group] : starts[group] + sizes[group]]
        own = np.bincount(of_class[rows], minlength=counts.shape[1])
        part = int(np.lexsort((counts.sum(axis=1), counts @ own))[0])
        parts[rows] = part
        counts[part] += own
    for index in range(counts.shape[1]):
        rows = np.flatnonzero((of_class == index) & (parts < 0))
        rows = rows[np.argsort(draws[rows], kind="stable")]
        more = _filled(counts[:, index], counts.sum(axis=1), len(rows))
        parts[rows] = np.repeat(np.arange(num_parts), more)
        counts[:, index] += more
    return parts


def _filled(held: np.ndarray, sizes: np.ndarray, number: int) -> np.ndarray:
    """How many of so many rows each part gets, (num_parts,), so that what they hold differs as little as can be."""
    level = int(held.min())
    while np.maximum(level + 1 - held, 0).sum() <= number:
        level += 1
    more = np.maximum(level - held, 0)
    lowest = np.flatnonzero(held + more == level)
    left = number - int(more.sum())
    more[lowest[np.argsort((sizes + more)[lowest], kind="stable")[:left]]] += 1
    return np.asarray(more)


def _groups(rows: pa.Table, task: Task) -> np.ndarray:
    """A number for each row, int64 (N,), equal where rows must be in one fold."""
    texts = rows.select(["text_b"]) if task.info.kind == "extractive_qa" else rows
    return numbered(plain(joined(texts)))


def _classes(rows: pa.Table, task: Task) -> np.ndarray:
    """What is spread evenly over folds, int64 (N,)."""
    if task.info.kind == "classification":
        return np.asarray(rows["label"].to_numpy(), np.int64)
    return np.zeros(rows.num_rows, np.int64)


def _faults(rows: pa.Table, fold: np.ndarray, num_folds: int) -> list[str]:
    """Folds whose training rows would all have the same label."""
    if "label" not in rows.column_names:
        return []
    labels = label_values(rows["label"].combine_chunks())
    alike = []
    for index in range(num_folds):
        trained = labels[fold != index]
        if (trained == trained[:1]).all():
            alike.append(str(index))
    rule = "must leave rows of different labels to train on, whichever fold is validated on"
    return [f"folds: {rule}, but all are alike without fold {', '.join(alike)}"] if alike else []


def _rare_classes(task: Task, classes: np.ndarray, num_folds: int) -> Sequence[str]:
    """A note on classes that some folds have no row of."""
    if task.info.kind != "classification":
        return ()
    found, counts = np.unique(classes, return_counts=True)
    rare = found[counts < num_folds].tolist()
    if not rare:
        return ()
    names = [repr(task.info.label_names[label]) if task.info.label_names else str(label) for label in rare[:5]]
    listed = ", ".join(names) + (", ..." if len(rare) > 5 else "")
    return (f"fewer than {num_folds} rows have the class {listed}, so some folds are validated without it",)
