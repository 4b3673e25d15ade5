"""Which files of a task folder hold its rows: the usual splits, further ones, or one file of all rows."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
import pytest

from trainables import tasks
from trainables.data.layout import split_files
from trainables.faults import FaultsError

Rows = Mapping[str, list[Any]]
GOOD: Rows = {"text_a": ["one text", "another", "a third"], "label": [0, 1, 1]}
TWENTY: Rows = {"text_a": [f"text {row}" for row in range(20)], "label": ["b", "a", "a", "c"] * 5}


def write(folder: Path, *, ending: str = ".parquet", **splits: Rows) -> str:
    folder.mkdir(exist_ok=True)
    for split, rows in splits.items():
        path, table = folder / f"{split}{ending}", pa.table(dict(rows))
        if ending == ".parquet":
            pa.parquet.write_table(table, path)
        elif ending == ".jsonl":
            path.write_text("".join(json.dumps(row) + "\n" for row in table.to_pylist()), encoding="utf-8")
        else:
            between = "\t" if ending == ".tsv" else ","
            pa.csv.write_csv(
                table, path, pa.csv.WriteOptions(delimiter=between, quoting_style="none", quoting_header="none")
            )
    return str(folder)


def faults_of(reference: str) -> str:
    with pytest.raises(FaultsError) as refusal:
        tasks.load(reference)
    return str(refusal.value)


def test_the_files_of_a_folder_are_found_by_split() -> None:
    names = ["train.csv", "notes.txt", "test_a.tsv", "validation.jsonl", "train.parquet", "test_.csv", "trains.csv"]
    assert split_files(names) == {
        "train": ["train.parquet", "train.csv"],
        "validation": ["validation.jsonl"],
        "test_a": ["test_a.tsv"],
    }


class TestFurtherSplits:
    def test_they_come_after_the_others_by_name(self, tmp_path: Path) -> None:
        further = {"test_zoo": GOOD, "validation_mismatched": GOOD, "validation_b2": GOOD}
        task = tasks.load(write(tmp_path, train=GOOD, validation=GOOD, test=GOOD, **further))
        assert list(task.splits) == ["train", "validation", "test", *sorted(further)]
        assert task.splits["validation_mismatched"].to_pydict() == dict(GOOD)

    def test_their_rows_are_part_of_the_fingerprint(self, tmp_path: Path) -> None:
        other = {**GOOD, "label": [1, 0, 1]}
        further = [{}, {"validation_x": GOOD}, {"validation_x": other}, {"validation_y": GOOD}, {"test_x": GOOD}]
        loaded = [
            tasks.load(write(tmp_path / str(index), train=GOOD, validation=GOOD, **splits))
            for index, splits in enumerate(further)
        ]
        assert len({task.fingerprint for task in loaded}) == len(further)

    def test_without_them_a_task_keeps_the_fingerprint_it_always_had(self, tmp_path: Path) -> None:
        fingerprint = tasks.load(write(tmp_path, train=GOOD, validation=GOOD, test=GOOD)).fingerprint
        assert fingerprint == "f8966133a7332b0d37e56d6578eb3095d7b60c5b8733814b5376554745644ee9"

    def test_a_test_split_without_labels_counts_as_absent(self, tmp_path: Path) -> None:
        hidden = {**GOOD, "label": [-1, -1, -1]}
        splits = tasks.load(write(tmp_path, train=GOOD, validation=GOOD, test_mismatched=hidden)).splits
        assert list(splits) == ["train", "validation"]

    def test_their_rows_are_checked(self, tmp_path: Path) -> None:
        message = faults_of(write(tmp_path, train=GOOD, validation=GOOD, validation_new={**GOOD, "label": [0, 7, 1]}))
        assert "validation_new: labels must be in 0..1, but got 7 in 1 row (2)" in message

    def test_they_do_not_stand_for_the_splits_a_task_needs(self, tmp_path: Path) -> None:
        assert "- validation: needs a file" in faults_of(write(tmp_path, train=GOOD, validation_new=GOOD))


class TestOneFileOfAllRows:
    @pytest.mark.parametrize("ending", [".parquet", ".csv", ".tsv", ".jsonl"])
    def test_it_is_cut_into_three_the_same_in_every_format(self, tmp_path: Path, ending: str) -> None:
        task = tasks.load(write(tmp_path, ending=ending, all=TWENTY))
        assert {split: part.num_rows for split, part in task.splits.items()} == {
            "train": 16,
            "validation": 2,
            "test": 2,
        }
        assert task.fingerprint == "34a76b969bd74b0cc7f9f2244a2af4d5379b1594b2f0dae733d4f5d94707790c"
        assert task.info.source == f"{tmp_path}, cut at random (seed 0) into 80 % train, 10 % validation, 10 % test"

    def test_what_is_inferred_is_of_all_rows(self, tmp_path: Path) -> None:
        """So a label of few rows is known wherever its rows fall."""
        texts = [f"{row}" for row in range(20)]
        for rare in range(20):
            labels = ["rare" if row == rare else "ab"[row % 2] for row in range(20)]
            info = tasks.load(write(tmp_path / str(rare), all={"text_a": texts, "label": labels})).info
            assert info.label_names == ("a", "b", "rare")

    def test_scores_are_cut_too(self, tmp_path: Path) -> None:
        rows = {"text_a": TWENTY["text_a"], "label": [row / 4 for row in range(20)]}
        task = tasks.load(write(tmp_path, all=rows))
        assert (task.info.kind, len(task.splits)) == ("regression", 3)

    def test_its_faults_name_its_rows(self, tmp_path: Path) -> None:
        rows = {**TWENTY, "text_a": [*TWENTY["text_a"][:19], " "]}
        assert "all: text_a must not be null or empty, but is in 1 row (20)" in faults_of(write(tmp_path, all=rows))

    def test_it_stands_alone(self, tmp_path: Path) -> None:
        message = faults_of(write(tmp_path, all=TWENTY, train=TWENTY))
        assert "all: must be the only file with rows, or not be there, but there is train" in message

    def test_too_few_rows_are_refused(self, tmp_path: Path) -> None:
        assert "all: must have at least 6 rows" in faults_of(write(tmp_path, all=GOOD))
