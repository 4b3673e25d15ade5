"""A task cut to at most so many rows a split."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from trainables import tasks
from trainables.data.fewer_rows import fewer_rows


def test_rows_are_left_out_the_same_way_each_time_and_keep_their_order(task_folder: Callable[..., Path]) -> None:
    whole = tasks.load(str(task_folder(rows=64)))
    cut, again = fewer_rows(whole, train=20, evaluation=7), fewer_rows(whole, train=20, evaluation=7)
    assert {split: table.num_rows for split, table in cut.splits.items()} == {"train": 20, "validation": 7, "test": 7}
    assert cut.fingerprint == again.fingerprint != whole.fingerprint
    assert cut.splits["train"] == again.splits["train"]
    rows = [(row["text_a"], row["label"]) for row in whole.splits["train"].to_pylist()]
    kept = iter(rows)
    assert all((row["text_a"], row["label"]) in kept for row in cut.splits["train"].to_pylist())
    assert cut.splits["train"] != whole.splits["train"].slice(0, 20)


def test_a_task_that_is_small_enough_stays_as_it_is(task_folder: Callable[..., Path]) -> None:
    whole = tasks.load(str(task_folder(rows=64)))
    assert fewer_rows(whole, train=64, evaluation=None) is whole
    only_train = fewer_rows(whole, train=10, evaluation=None)
    assert only_train.splits["test"] is whole.splits["test"]
