"""Data sets as they are published: quotes, tabs, folders, encodings, and rows that do not count."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from trainables.data.published import (
    Published,
    comma_separated,
    find,
    folder_per_label,
    load_published,
    stamp,
    tab_separated,
)
from trainables.faults import FaultsError
from trainables.task import Task

OPINIONS = comma_separated("opinions*.csv", text="said", label="opinion")
SPAM = tab_separated("Spam", ("label", "text"), text="text", label="label")
GROUPS = folder_per_label("posts-*")


def load(folder: Path, source: Published, expected_rows: int | None = None) -> Task:
    found = find(folder, [source])
    assert found is not None
    return load_published(*found, name="some/task", expected_rows=expected_rows)


def rows_of(task: Task) -> list[tuple[str, str]]:
    names = task.info.label_names
    return sorted((row["text_a"], names[row["label"]]) for split in task.splits.values() for row in split.to_pylist())


def csv(rows: Sequence[tuple[str, str]], header: str = "id,opinion,said") -> str:
    quoted = [(label, text.replace('"', '""')) for text, label in rows]
    return "\n".join([header, *(f'{index},{label},"{text}"' for index, (label, text) in enumerate(quoted))])


TEN = [(f"sentence {row}", "good" if row % 2 else "bad") for row in range(10)]


def test_columns_are_found_by_their_header_and_quotes_are_read(tmp_path: Path) -> None:
    rows = [*TEN, ('he said "no",\nand left', "bad")]
    (tmp_path / "opinions-DFE.csv").write_text(csv(rows), encoding="utf-8")
    task = load(tmp_path, OPINIONS)
    assert rows_of(task) == sorted(rows)
    assert (task.info.name, task.info.kind, task.info.pair) == ("some/task", "classification", False)
    assert (task.info.metric, task.info.label_names) == ("accuracy", ("bad", "good"))
    assert {split: part.num_rows for split, part in task.splits.items()} == {"train": 8, "validation": 1, "test": 2}


def test_its_source_says_what_it_is_and_how_it_was_cut(tmp_path: Path) -> None:
    path = tmp_path / "opinions.csv"
    path.write_text(csv([*TEN, ("no label", ""), (" ", "good")]), encoding="utf-8")
    rows = "10 rows, 2 without text or usable label left out, 12 expected"
    assert load(tmp_path, OPINIONS, 12).info.source.startswith(f"{path} ({rows}), cut at random (seed 0) into 80 %")
    assert "expected" not in load(tmp_path, OPINIONS, 10).info.source


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "cp1252", "latin-1"])
def test_its_encoding_is_found_out(tmp_path: Path, encoding: str) -> None:
    text = "caf\xe9 \x81" if encoding == "latin-1" else "caf\xe9 \N{RIGHT SINGLE QUOTATION MARK}s"  # \x81: no cp1252
    (tmp_path / "opinions.csv").write_bytes(csv([*TEN, (text, "good")]).encode(encoding))
    (tmp_path / "Spam").write_bytes("\n".join(f"{label}\t{t}" for t, label in [*TEN, (text, "good")]).encode(encoding))
    assert (text, "good") in rows_of(load(tmp_path, OPINIONS))
    assert (text, "good") in rows_of(load(tmp_path, SPAM))


def test_equal_rows_are_the_same_task_whatever_their_encoding(tmp_path: Path) -> None:
    prints = set()
    for encoding in ("utf-8", "cp1252"):
        (tmp_path / "opinions.csv").write_bytes(csv([*TEN, ("caf\xe9", "good")]).encode(encoding))
        prints.add(load(tmp_path, OPINIONS).fingerprint)
    assert len(prints) == 1


def test_tabs_separate_without_header_and_without_quotes(tmp_path: Path) -> None:
    rows = [*TEN, ('"an open quotation mark, and a comma', "bad")]
    (tmp_path / "Spam").write_text("".join(f"{label}\t{text}\n" for text, label in rows), encoding="utf-8")
    assert rows_of(load(tmp_path, SPAM)) == sorted(rows)


def test_labels_are_renamed_and_those_not_named_are_left_out(tmp_path: Path) -> None:
    names: Mapping[str, str] = {"Yes": "yes", "Y": "yes", "No": "no"}
    source = comma_separated("climate.csv", text="said", label="opinion", labels=names)
    rows = [(f"{row}", ("Yes", "No", "Y", "N/A", " Yes")[row % 5]) for row in range(20)]
    (tmp_path / "climate.csv").write_text(csv(rows), encoding="utf-8")
    task = load(tmp_path, source)
    assert task.info.label_names == ("no", "yes")
    assert rows_of(task) == sorted((t, names[label.strip()]) for t, label in rows if label != "N/A")
    assert "16 rows, 4 without text or usable label left out" in task.info.source


def test_a_folder_per_label_is_read_from_all_folders_together(tmp_path: Path) -> None:
    for part in ("posts-train", "posts-test"):
        for label in ("sci.med", "rec.autos"):
            folder = tmp_path / part / label
            folder.mkdir(parents=True)
            for number in range(4):
                (folder / str(number)).write_bytes(f"Subject: {label} {number}\n\nna\xefve, {part}".encode("latin-1"))
    task = load(tmp_path, GROUPS)
    assert task.info.label_names == ("rec.autos", "sci.med")
    assert sum(part.num_rows for part in task.splits.values()) == 16
    assert ("Subject: sci.med 3\n\nna\xefve, posts-test", "sci.med") in rows_of(task)


def test_the_first_source_that_is_there_is_found(tmp_path: Path) -> None:
    assert find(tmp_path, [SPAM, OPINIONS]) is None
    (tmp_path / "opinions.csv").write_text("x")
    assert find(tmp_path, [SPAM, OPINIONS]) == (OPINIONS, (tmp_path / "opinions.csv",))
    (tmp_path / "Spam").write_text("x")
    assert find(tmp_path, [SPAM, OPINIONS]) == (SPAM, (tmp_path / "Spam",))


def test_a_stamp_changes_with_its_files(tmp_path: Path) -> None:
    path = tmp_path / "Spam"
    path.write_text("one")
    before = stamp([path])
    assert stamp([path]) == before
    path.write_text("other")
    assert stamp([path]) != before


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        (
            "id,opinion,text\n1,good,x\n",
            "opinions.csv cannot be read: it needs columns said, but has id, opinion, text",
        ),
        ("", "it needs columns said, opinion, but has none"),
        ("id,opinion,said\n1,good\n", "opinions.csv cannot be read: .*Expected 3 columns, got 2"),
        ("id,opinion,said\n1,good,x\n2,bad,y\n", "all: must have at least 6 rows"),
        ("id,opinion,said\n", "all: must have at least 1 row, but has 0"),
    ],
)
def test_a_file_that_cannot_be_used_says_why(tmp_path: Path, content: str, fault: str) -> None:
    (tmp_path / "opinions.csv").write_text(content, encoding="utf-8")
    with pytest.raises(FaultsError, match=fault):
        load(tmp_path, OPINIONS)


def test_folders_without_texts_are_a_fault(tmp_path: Path) -> None:
    (tmp_path / "posts-train").mkdir()
    with pytest.raises(FaultsError, match="posts-train cannot be read: it must hold a folder a label"):
        load(tmp_path, GROUPS)
