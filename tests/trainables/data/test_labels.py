"""Labels mean the same in every format: whole numbers, truth values, names and scores."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from trainables import tasks
from trainables.faults import FaultsError

FORMATS = ("csv", "tsv", "jsonl", "parquet")


def write(folder: Path, ending: str, labels: list[Any], **said: Any) -> str:
    """A folder whose splits have these labels."""
    folder.mkdir()
    (folder / "task.json").write_text(json.dumps(said), encoding="utf-8")
    rows = [{"text_a": f"text {place}", "label": label} for place, label in enumerate(labels)]
    for split in ("train", "validation", "test"):
        path = folder / f"{split}.{ending}"
        if ending == "parquet":
            pq.write_table(pa.Table.from_pylist(rows), path)
        elif ending == "jsonl":
            path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        else:
            lines = [("text_a", "label"), *((row["text_a"], str(row["label"])) for row in rows)]
            path.write_text("".join(("\t" if ending == "tsv" else ",").join(line) + "\n" for line in lines))
    return str(folder)


@pytest.mark.parametrize(
    ("labels", "names", "classes"),
    [
        ([1, 2, 3, 4, 5, 1], ("1", "2", "3", "4", "5"), [0, 1, 2, 3, 4, 0]),
        ([-1, 1, 1, -1], ("-1", "1"), [0, 1, 1, 0]),
        ([0, 4, 4, 0], ("0", "4"), [0, 1, 1, 0]),
        ([10, 9, 100, 9], ("9", "10", "100"), [1, 0, 2, 0]),
        ([0, 1, 2, 1], (), [0, 1, 2, 1]),
        ([1.0, 0.0, 1.0], (), [1, 0, 1]),
        ([3.0, 1.0, 3.0], ("1", "3"), [1, 0, 1]),
        ([True, False, True], ("False", "True"), [1, 0, 1]),
        (["no", "yes", "NA"], ("NA", "no", "yes"), [1, 2, 0]),
    ],
)
def test_classes_are_the_same_in_every_format(
    labels: list[Any], names: tuple[str, ...], classes: list[int], tmp_path: Path
) -> None:
    loaded = [tasks.load(write(tmp_path / kind, kind, labels)) for kind in FORMATS]
    assert len({task.fingerprint for task in loaded}) == 1
    for task in loaded:
        assert (task.info.label_names, task.info.num_labels) == (names, len(set(classes)))
        assert task.splits["test"]["label"].to_pylist() == classes


def test_names_with_leading_zeros_stay_names(tmp_path: Path) -> None:
    task = tasks.load(write(tmp_path / "a", "csv", ["007", "7", "010"]))
    assert (task.info.label_names, task.info.num_labels) == (("007", "010", "7"), 3)


def test_scores_may_have_leading_zeros(tmp_path: Path) -> None:
    task = tasks.load(write(tmp_path / "a", "csv", ["01", "02"], kind="regression"))
    assert task.splits["train"]["label"].to_pylist() == [1.0, 2.0]


@pytest.mark.parametrize("kind", FORMATS)
class TestNamesOfLabels:
    def test_a_list_of_numbers_names_the_numbers(self, kind: str, tmp_path: Path) -> None:
        task = tasks.load(write(tmp_path / "a", kind, [5, 4, 5], label_names=["4", "5"]))
        assert task.splits["train"]["label"].to_pylist() == [1, 0, 1]

    def test_an_object_says_which_label_each_is_for(self, kind: str, tmp_path: Path) -> None:
        said = {"label_names": {"2": "good", "1": "bad"}}
        task = tasks.load(write(tmp_path / "a", kind, [1, 2, 2], **said))
        assert task.info.label_names == ("bad", "good")
        assert task.splits["train"]["label"].to_pylist() == [0, 1, 1]

    def test_one_that_no_row_has_is_kept(self, kind: str, tmp_path: Path) -> None:
        task = tasks.load(write(tmp_path / "a", kind, [1, 2, 1], label_names=["world", "sports", "business"]))
        assert (task.info.num_labels, task.splits["train"]["label"].to_pylist()) == (3, [1, 2, 1])


@pytest.mark.parametrize(
    ("labels", "fault"),
    [
        (["1,5", "2,25", "4"], "labels hold numbers with commas ('1,5', '2,25'): write decimals with a point"),
        (["10", "10,27", "27"], 'Where these are several labels a text, say "kind": "multilabel" in task.json'),
        (["1.5", "2.25", "N/A", "3"], "labels are numbers that are not whole, but 'N/A' in 1 row (3)"),
    ],
)
def test_names_that_are_something_else_are_pointed_out(labels: list[str], fault: str, tmp_path: Path) -> None:
    with pytest.raises(FaultsError) as refusal:
        tasks.load(write(tmp_path / "a", "parquet", labels))
    assert f"train: {fault}" in str(refusal.value) or fault in str(refusal.value)
    said = {"kind": "classification"}
    assert tasks.load(write(tmp_path / "b", "parquet", labels, **said)).info.num_labels == len(labels)


def test_a_test_split_of_minus_one_is_hidden_unless_train_has_that_class(tmp_path: Path) -> None:
    for name, train, splits in (("a", [0, 1], 2), ("b", [-1, 1], 3)):
        folder = Path(write(tmp_path / name, "csv", train))
        (folder / "test.csv").write_text("text_a,label\nx,-1\ny,-1\n")
        assert len(tasks.load(str(folder)).splits) == splits


@pytest.mark.parametrize(
    ("labels", "read"),
    [
        ([" 0", "1 ", " 1", "0"], [0, 1, 1, 0]),
        ([" 0.5 ", "1.5", " 2", "1"], [0.5, 1.5, 2.0, 1.0]),
        (["neg  ", "pos  ", "neg  "], ["neg", "pos", "neg"]),
        (["pos ", "pos", "neg"], ["pos ", "pos", "neg"]),
        (["0x10", "0x0f", "0x10"], ["0x10", "0x0f", "0x10"]),
    ],
)
def test_blanks_around_labels_do_not_count_unless_labels_differ_in_them(
    labels: list[str], read: list[Any], tmp_path: Path
) -> None:
    task = tasks.load(write(tmp_path / "task", "tsv", labels))
    values = task.splits["train"]["label"].to_pylist()
    assert [task.info.label_names[v] for v in values] if task.info.label_names else values == read


@pytest.mark.parametrize("label", ["1,000.5", "12.5%", "$3.50", "\u22120.5", "1 000.5"])
@pytest.mark.parametrize("said", [{}, {"kind": "regression"}])
def test_numbers_that_are_written_for_people_are_no_classes(label: str, said: dict[str, str], tmp_path: Path) -> None:
    with pytest.raises(FaultsError) as refusal:
        tasks.load(write(tmp_path / "task", "tsv", [label, "0.5", "2"], **said))
    assert f"({label!r} in 1 row (line 2))" in str(refusal.value) or f"got {label!r}" in str(refusal.value)
    assert "write decimals with a point, and no signs of thousands, percent or currency" in str(refusal.value)


def test_a_test_split_of_question_marks_counts_as_absent(tmp_path: Path) -> None:
    folder = write(tmp_path / "task", "csv", ["no", "yes", "no"])
    (tmp_path / "task" / "test.csv").write_text("text_a,label\nx,?\ny,?\n", encoding="utf-8")
    assert list(tasks.load(folder).splits) == ["train", "validation"]


def test_names_for_labels_that_do_not_begin_at_0_are_to_be_an_object(tmp_path: Path) -> None:
    with pytest.raises(FaultsError, match=r'as an object, they say which label each is for: \{"3": "good", ...\}'):
        tasks.load(write(tmp_path / "task", "csv", [1, 2, 3], label_names=["bad", "so-so", "good"]))


@pytest.mark.parametrize(
    ("written", "names"),
    [
        ([3, 1, 2], ("3", "1", "2")),
        ([3.0, 1, "2"], ("3", "1", "2")),
        ({"1": 10, "2": 20, "3": True}, ("10", "20", "True")),
    ],
)
@pytest.mark.parametrize("kind", FORMATS)
def test_label_names_may_be_numbers(written: Any, names: tuple[str, ...], kind: str, tmp_path: Path) -> None:
    for labels in ([1, 2, 3, 1], [1.0, 2.0, 3.0, 1.0]):
        task = tasks.load(write(tmp_path / str(labels[0]), kind, labels, label_names=written))
        assert task.info.label_names == names
        places = [names.index(name) for name in names] if isinstance(written, dict) else [1, 2, 0]
        assert task.splits["train"]["label"].to_pylist() == [*places, places[0]]


@pytest.mark.parametrize("kind", FORMATS)
def test_label_names_may_be_truth_values(kind: str, tmp_path: Path) -> None:
    task = tasks.load(write(tmp_path / "task", kind, [True, False, True], label_names=[True, False]))
    assert task.info.label_names == ("True", "False")
    assert task.splits["train"]["label"].to_pylist() == [0, 1, 0]


BAD_NUMBERS = ("nan", " NaN", "inf", "-inf", "1e999", "")


@pytest.mark.parametrize("bad", [*BAD_NUMBERS, "oops", "?"])
@pytest.mark.parametrize("said", [{}, {"kind": "regression"}, {"num_labels": 1}, {"metric": "pearson"}])
def test_rows_whose_score_is_none_are_left_out_where_asked(bad: str, said: dict[str, Any], tmp_path: Path) -> None:
    labels = ["0.5", "2", bad, "1.5"]
    task = tasks.load(write(tmp_path / "task", "csv", labels, skip_bad_rows=True, **said))
    assert task.info.kind == "regression"
    for split in ("train", "validation", "test"):
        assert task.splits[split]["label"].to_pylist() == [0.5, 2.0, 1.5]
        assert [note for note in task.notes if note.startswith(f"{split}: left out 1 row (line 4) w")]
    with pytest.raises(FaultsError) as refusal:
        tasks.load(write(tmp_path / "strict", "csv", labels, **said))
    assert "leave them out by" in refusal.value.faults[0]


@pytest.mark.parametrize("bad", BAD_NUMBERS)
@pytest.mark.parametrize("said", [{}, {"kind": "classification"}, {"label_names": ["0", "1"]}, {"num_labels": 2}])
def test_rows_whose_class_is_no_number_among_numbers_are_left_out(
    bad: str, said: dict[str, Any], tmp_path: Path
) -> None:
    task = tasks.load(write(tmp_path / "task", "csv", ["0", "1", bad, "1"], skip_bad_rows=True, **said))
    assert task.info.kind == "classification"
    assert task.splits["train"]["label"].to_pylist() == [0, 1, 1]


def test_rows_that_may_be_meant_otherwise_are_not_left_out(tmp_path: Path) -> None:
    task = tasks.load(write(tmp_path / "names", "csv", ["0", "1", "oops", "1"], skip_bad_rows=True))
    assert task.info.label_names == ("0", "1", "oops")
    for name, labels in {"written": ["0.5", "1,000.5", "2", "1.5"], "texts": ["a", "b", "c", "1.5"]}.items():
        with pytest.raises(FaultsError) as refusal:
            tasks.load(write(tmp_path / name, "tsv", labels, skip_bad_rows=True, kind="regression"))
        assert "labels of a regression must be numbers" in refusal.value.faults[0]
        assert "skip_bad_rows" not in str(refusal.value), "which is set already"


def test_a_test_split_of_nothing_but_nan_hides_its_labels(tmp_path: Path) -> None:
    folder = Path(write(tmp_path / "task", "csv", ["0.5", "2", "1.5"]))
    (folder / "test.csv").write_text("text_a,label\none,nan\ntwo,nan\n", encoding="utf-8")
    assert "test" not in tasks.load(str(folder)).splits
