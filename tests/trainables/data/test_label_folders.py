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


def test_what_is_no_text_is_told_and_not_read(tmp_path: Path) -> None:
    folder = write(tmp_path, train__neg=12, train__pos=12, test__pos=3)
    for name in ("notes.md", "README"):
        (tmp_path / "train" / "pos" / name).write_text("not read", encoding="utf-8")
    (tmp_path / "train" / "neutral").mkdir()
    (tmp_path / "train" / "neutral" / "1.html").write_text("not read", encoding="utf-8")
    task = tasks.load(folder)
    assert task.info.label_names == ("neg", "pos")
    assert "train: pos holds what is no text and not read: README, notes.md" in task.notes
    assert "train: no folders of texts (.txt) with a label, and not read: neutral" in task.notes


def test_folders_of_anything_are_refused_without_being_read(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "1").write_bytes(b"\x7fELF\x02\x01\x01\0\0\0")
        with (tmp_path / name / "2").open("wb") as content:
            content.truncate(1 << 40)  # as the memory of a running system shows itself in its file system
    with pytest.raises(FaultsError) as refusal:
        tasks.load(str(tmp_path))
    assert "one/2 is of 1,048,576 MiB, more than the 32 that one text may have" in str(refusal.value)
    assert "one/1 is no text: it holds zero bytes" in str(refusal.value)


def test_files_of_any_name_in_folders_of_any_name_are_no_task(tmp_path: Path) -> None:
    for name in ("cron.daily", "pam.d"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "sudo").write_text("what a system is set up with", encoding="utf-8")
    with pytest.raises(FaultsError, match=r"train: needs a file .*must end in \.txt or be called by numbers"):
        tasks.load(str(tmp_path))


def test_of_files_that_are_no_texts_a_thousand_are_enough(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        for number in range(501):
            (tmp_path / name / f"{number}").write_bytes(b"\0\1\2\3\4")
    with pytest.raises(FaultsError, match="1,000 of its files are no texts, and no more are read"):
        tasks.load(str(tmp_path))


def test_a_folder_of_hardly_any_texts_is_no_label(tmp_path: Path) -> None:
    folder = write(tmp_path, one=1, two=1)
    for name in ("one", "two"):
        for ending in ("pdf", "odt"):
            (tmp_path / name / f"x.{ending}").write_text("no text", encoding="utf-8")
    with pytest.raises(FaultsError, match="train: needs a file"):
        tasks.load(folder)


def test_folders_of_texts_that_lie_deeper_are_named(tmp_path: Path) -> None:
    write(tmp_path, aclImdb__train__pos=3, aclImdb__train__neg=3)
    with pytest.raises(FaultsError, match=f"{tmp_path}/aclImdb has folders of texts with a label each: name that"):
        tasks.load(str(tmp_path))
