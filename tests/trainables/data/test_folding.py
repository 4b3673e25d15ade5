"""Rows cut into folds: which row falls where, what is kept together, and what cannot be cut."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.factories import trial_config
from trainables import tasks
from trainables.data.folding import Folding, assign, fold_of, fold_task
from trainables.faults import FaultsError
from trainables.metrics import TaskKind
from trainables.task import Task, TaskInfo, fingerprint

Rows = Sequence[tuple[str, Any]]


def task(rows: Rows, *, test: Rows = (("a test", 0),), kind: TaskKind = "classification", validation: int = 1) -> Task:
    info = TaskInfo(
        name="made", kind=kind, pair=False, num_labels=4, label_names=(), metric="accuracy", source="a table"
    )
    parts = {"train": rows[:-validation], "validation": rows[-validation:], **({"test": test} if test else {})}
    splits = {
        name: pa.table({"text_a": [text for text, _ in part], "label": [label for _, label in part]})
        for name, part in parts.items()
    }
    return Task(info=info, splits=splits, fingerprint=fingerprint(info, splits))


def texts(table: pa.Table) -> list[str]:
    return list(table["text_a"].to_pylist())


@settings(max_examples=60, deadline=None)
@given(
    labels=st.lists(st.integers(0, 3), min_size=20, max_size=120).filter(lambda found: len(set(found)) > 1),
    num_folds=st.integers(2, 6),
    copies=st.lists(st.tuples(st.integers(0, 19), st.integers(0, 19)), max_size=6),
)
def test_folds_partition_the_rows_evenly_and_keep_equal_texts_together(
    labels: list[int], num_folds: int, copies: list[tuple[int, int]]
) -> None:
    groups = np.arange(len(labels))
    for one, other in copies:
        groups[one] = groups[other]
    classes = np.array(labels)
    parts = assign(groups, classes, num_folds)
    assert set(parts.tolist()) <= set(range(num_folds))
    assert (parts == assign(groups.copy(), classes.copy(), num_folds)).all()
    for group in np.unique(groups):
        assert len(np.unique(parts[groups == group])) == 1
    if len(np.unique(groups)) < len(groups):
        return
    for of_class in [*(classes == label for label in np.unique(classes)), np.ones(len(classes), bool)]:
        sizes = np.bincount(parts[of_class], minlength=num_folds)
        assert sizes.max() - sizes.min() <= 1


class TestTheFoldsOfATask:
    rows: Rows = tuple((f"text {row}", row % 3 % 2) for row in range(60))

    def test_each_row_is_validated_on_once_and_test_stays_as_it_is(self) -> None:
        made = task(self.rows, validation=20)
        seen = [fold_of(made, 5, fold) for fold in range(5)]
        validated = [text for fold in seen for text in texts(fold.splits["validation"])]
        assert sorted(validated) == sorted(text for text, _ in self.rows)
        for index, fold in enumerate(seen):
            assert sorted(texts(fold.splits["train"]) + texts(fold.splits["validation"])) == sorted(validated)
            assert fold.splits["test"] is made.splits["test"]
            assert fold_task(made, 5).rows_by_split(index) == {s: t.num_rows for s, t in fold.splits.items()}
        assert len({fold.fingerprint for fold in seen}) == 5

    def test_a_copy_of_the_rows_is_cut_alike_wherever_validation_began(self) -> None:
        ours, theirs = (fold_of(task(self.rows, validation=number), 4, 2) for number in (1, 30))
        assert ours.fingerprint == theirs.fingerprint

    def test_near_duplicates_are_never_in_two_folds(self) -> None:
        doubled = [*self.rows, *((text.upper().replace(" ", "  ") + "!", label) for text, label in self.rows[:25])]
        found = fold_task(task(doubled), 5)
        fold = dict(zip(texts(found.rows), found.fold.tolist(), strict=True))
        assert all(fold[text] == fold[text.upper().replace(" ", "  ") + "!"] for text, _ in self.rows[:25])
        assert np.bincount(found.fold).tolist() == [17] * 5

    def test_without_a_test_a_tenth_of_each_class_is_cut_off_first(self) -> None:
        found = fold_task(task(self.rows, test=()), 3)
        test = found.others["test"]
        assert np.bincount(test["label"].to_numpy()).tolist() == [4, 2]
        assert sorted([*texts(test), *texts(found.rows)]) == sorted(text for text, _ in self.rows)
        assert "test is 6 rows cut off them before (seed 0)" in found.notes[1]
        assert list(fold_of(task(self.rows, test=()), 3, 0).splits) == ["train", "validation", "test"]

    def test_questions_of_one_context_are_in_one_fold(self) -> None:
        info = TaskInfo(
            name="qa", kind="extractive_qa", pair=True, num_labels=2, label_names=(), metric="squad_f1", source="made"
        )
        table = pa.table(
            {
                "id": [str(row) for row in range(24)],
                "text_a": [f"question {row}" for row in range(24)],
                "text_b": [f"context {row // 4}" for row in range(24)],
                "answers": [[{"text": "context", "start": 0}]] * 24,
            }
        )
        splits = {"train": table, "validation": table.slice(0, 0), "test": table.slice(0, 4)}
        found = fold_task(Task(info=info, splits=splits, fingerprint="any"), 3)
        assert np.bincount(found.fold).tolist() == [8, 8, 8]
        assert all(len(set(found.fold[first : first + 4])) == 1 for first in range(0, 24, 4))

    def test_scores_are_cut_into_equal_parts_and_rare_classes_are_named(self) -> None:
        scores = fold_task(
            task([(text, float(index)) for index, (text, _) in enumerate(self.rows)], kind="regression"), 7
        )
        assert set(np.bincount(scores.fold)) == {8, 9}
        rare = fold_task(task([*self.rows, ("one", 2), ("two", 3)]), 5)
        assert rare.notes[-1] == "fewer than 5 rows have the class 2, 3, so some folds are validated without it"

    @pytest.mark.parametrize(
        ("rows", "test", "says"),
        [
            (
                [("same", 0), ("Same!", 1), ("other", 0)],
                [("a", 0)],
                "number of different texts that are cut, 2, but got 3",
            ),
            ([(f"t{row}", int(row == 0)) for row in range(20)], [("a", 0)], "alike without fold"),
            ([(f"t{row}", row % 2) for row in range(9)], [], "at least 10 different texts"),
        ],
    )
    def test_too_few_rows_are_refused_with_the_reason(self, rows: Rows, test: Rows, says: str) -> None:
        with pytest.raises(FaultsError, match=says):
            fold_task(task(rows, test=test), 3)

    def test_there_is_no_fold_beyond_the_last(self) -> None:
        with pytest.raises(FaultsError, match="from 0 to 2"):
            fold_of(task(self.rows), 3, 3)


def lines(rows: range) -> str:
    return "text_a,label\n" + "".join(f"text number {row},{'yes' if row % 3 else 'no'}\n" for row in rows)


def write(folder: Path, declared: Mapping[str, Any], **files: range) -> str:
    folder.mkdir(parents=True, exist_ok=True)
    for split, rows in files.items():
        (folder / f"{split}.csv").write_text(lines(rows), encoding="utf-8")
    (folder / "task.json").write_text(json.dumps(declared), encoding="utf-8")
    return str(folder)


def test_a_task_json_may_say_folds_and_a_trial_reads_its_own(tmp_path: Path) -> None:
    reference = write(tmp_path, {"folds": 4}, train=range(40), test=range(100, 110))
    loaded = tasks.load(reference)
    assert loaded.folds == 4
    config = trial_config(task=reference, folds=4, fold=1)
    mine: Task = tasks.load_trial(config)
    assert {split: table.num_rows for split, table in mine.splits.items()} == {
        "train": 30,
        "validation": 10,
        "test": 10,
    }
    assert mine.info.source.endswith("validated on fold 1 of 4")
    assert tasks.load_trial(config) is mine
    assert tasks.load_trial(trial_config(task=reference)) is loaded
    cut: Folding = fold_task(loaded, 4)
    assert sorted(texts(cut.rows)) == sorted(f"text number {row}" for row in range(40))


@pytest.mark.parametrize("value", [1, 21, True, 2.0, "5", [5]])
def test_other_numbers_of_folds_are_a_fault_of_task_json(tmp_path: Path, value: Any) -> None:
    with pytest.raises(FaultsError, match="folds must be a whole number from 2 to 20"):
        tasks.load(write(tmp_path, {"folds": value}, train=range(30), validation=range(30, 40)))
