"""Texts that lie one a file in folders of their labels."""

from __future__ import annotations

from pathlib import Path

import pytest

from trainables import tasks
from trainables.faults import FaultsError


def write(root: Path, **texts: int) -> str:
    """So many files in each folder; `train__pos` is `train/pos`."""
    for name, count in texts.items():
        folder = root.joinpath(*name.split("__"))
        folder.mkdir(parents=True)
        for number in range(count):
            (folder / f"{number}_7.txt").write_text(f"{name} says\n{number}\n", encoding="utf-8")
    return str(root)


def test_splits_hold_a_folder_a_label(tmp_path: Path) -> None:
    (tmp_path / "README").write_text("not read", encoding="utf-8")
    folder = write(tmp_path, train__neg=12, train__pos=12, train__unsup=3, test__pos=2, test__neg=1)
    (tmp_path / "train" / "urls_pos.txt").write_text("not read", encoding="utf-8")
    task = tasks.load(folder)
    assert task.info.label_names == ("neg", "pos")
    assert {name: table.num_rows for name, table in task.splits.items()} == {"train": 22, "validation": 2, "test": 3}
    assert task.splits["test"].to_pydict() == {
        "text_a": ["test__neg says\n0", "test__pos says\n0", "test__pos says\n1"],
        "label": [0, 1, 1],
    }
    assert "train: 3 texts in unsup have no label and are not read" in task.notes
    assert task.readings[0].files == ("train/neg", "train/pos")


def test_without_splits_the_folders_are_labels_and_are_cut(tmp_path: Path) -> None:
    task = tasks.load(write(tmp_path, sport=10, politics=10))
    assert task.info.label_names == ("politics", "sport")
    assert [table.num_rows for table in task.splits.values()] == [16, 2, 2]


def test_another_text_is_another_task(tmp_path: Path) -> None:
    folder = write(tmp_path, train__a=12, train__b=12)
    before = tasks.load(folder).fingerprint
    (tmp_path / "train" / "a" / "0_7.txt").write_text("something else", encoding="utf-8")
    assert tasks.load(folder).fingerprint != before


def test_files_without_a_text_are_named_or_left_out(tmp_path: Path) -> None:
    folder = write(tmp_path, train__a=12, train__b=12)
    (tmp_path / "train" / "a" / "5_7.txt").write_text(" \n", encoding="utf-8")
    (tmp_path / "train" / "b" / "6_7.txt").write_bytes(b"\xff\xfea")
    with pytest.raises(FaultsError) as refusal:
        tasks.load(folder)
    assert "train/b/6_7.txt begins as utf-16" in str(refusal.value)
    assert "every file must hold a text, but train/a/5_7.txt is empty" in str(refusal.value)
    (tmp_path / "task.json").write_text('{"skip_bad_rows": true}', encoding="utf-8")
    task = tasks.load(folder)
    assert sum(table.num_rows for table in task.splits.values()) == 22
    assert "train: left out 2 files" in "".join(task.notes)


def test_rows_in_files_go_before_folders(tmp_path: Path) -> None:
    folder = write(tmp_path, train__a=3, train__b=3)
    (tmp_path / "train.csv").write_text(
        "text_a,label\n" + "".join(f"text {n},{n % 2}\n" for n in range(20)), encoding="utf-8"
    )
    assert tasks.load(folder).splits["train"].num_rows == 18


def test_a_split_may_have_rows_of_one_label_alone(tmp_path: Path) -> None:
    task = tasks.load(write(tmp_path, train__neg=12, train__pos=12, test__pos=3))
    assert task.splits["test"]["label"].to_pylist() == [1, 1, 1]
