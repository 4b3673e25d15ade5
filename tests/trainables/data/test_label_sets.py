"""Several labels a text, in whichever way files have them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainables import tasks
from trainables.data.audit.suggestion import suggest
from trainables.data.label_sets import with_lists
from trainables.faults import FaultsError
from trainables.predictions import label_values
from trainables.task import Task

ROWS = [["joy", "love"], [], ["love"], ["fear", "joy"]] * 6
NAMES = ("fear", "joy", "love")


def csv_of(labels: list[str]) -> str:
    return "\n".join(["text_a,label", *(f'text {row},"{label}"' for row, label in enumerate(labels))])


def json_lines(labels: list[Any]) -> str:
    return "\n".join(json.dumps({"text": f"text {row}", "labels": label}) for row, label in enumerate(labels))


def load(folder: Path, content: str | pa.Table, ending: str, **declared: Any) -> Task:
    folder.mkdir(parents=True)
    for split in ("train", "validation"):
        if isinstance(content, pa.Table):
            pq.write_table(content, folder / f"{split}.{ending}")
        else:
            (folder / f"{split}.{ending}").write_text(content, encoding="utf-8")
    (folder / "task.json").write_text(json.dumps(declared), encoding="utf-8")
    return tasks.load(str(folder))


def sets_of(task: Task, split: str = "train") -> list[list[str]]:
    names = task.info.label_names or [str(label) for label in range(task.info.num_labels)]
    return [
        [name for name, has in zip(names, row, strict=True) if has] for row in task.splits[split]["label"].to_pylist()
    ]


ONE_HOT = "\n".join(
    [
        "id,comment,fear,joy,love",
        *(f"{n},text {n}," + ",".join(str(int(m in r)) for m in NAMES) for n, r in enumerate(ROWS)),
    ]
)
WAYS: dict[str, tuple[str | pa.Table, str, Mapping[str, Any]]] = {
    "a list a row": (json_lines(ROWS), "jsonl", {}),
    "a name that may stand alone": (
        json_lines([row[0] if len(row) == 1 else row for row in ROWS]), "jsonl", {"kind": "multilabel"},
    ),
    "lists of Parquet": (pa.table({"text": [f"text {n}" for n in range(24)], "label": ROWS}), "parquet", {}),
    "lists written as JSON": (csv_of([json.dumps(row).replace('"', '""') for row in ROWS]), "csv", {}),
    "lists written as Python does": (csv_of([str(row) for row in ROWS]), "csv", {}),
    "a separator that is named": (csv_of(["+".join(row) for row in ROWS]), "csv", {"label_separator": "+"}),
    "a separator that is found": (csv_of(["; ".join(row) for row in ROWS]), "csv", {"kind": "multilabel"}),
    "a column a label": (ONE_HOT, "csv", {}),
    "columns that are named": (
        ONE_HOT.replace("comment", "words"), "csv", {"columns": {"text_a": "words", "label": list(NAMES)}},
    ),
}  # fmt: skip


@pytest.mark.parametrize("way", WAYS)
def test_they_mean_the_same_in_every_way(way: str, tmp_path: Path) -> None:
    content, ending, declared = WAYS[way]
    task = load(tmp_path / "a", content, ending, **declared)
    assert (task.info.kind, task.info.label_names, task.info.metric) == ("multilabel", NAMES, "micro_f1")
    assert sets_of(task) == sets_of(task, "validation") == ROWS
    same = load(tmp_path / "b", json_lines(ROWS), "jsonl")
    assert task.fingerprint == same.fingerprint
    other = load(tmp_path / "c", json_lines([*ROWS[1:], ROWS[0]]), "jsonl")
    assert other.fingerprint != same.fingerprint


@pytest.mark.parametrize("written", [[27, 3, 4], ["27", "3", "4"]])
def test_numbers_are_names_in_their_order_unless_they_count_from_0(written: list[Any], tmp_path: Path) -> None:
    rows = [[written[0], written[2]], [], [written[1]]] * 4
    task = load(tmp_path / "a", json_lines(rows), "jsonl")
    assert task.info.label_names == ("3", "4", "27")
    assert sets_of(task)[:3] == [["4", "27"], [], ["3"]]
    task = load(tmp_path / "b", json_lines([[0, 2], [], [1]] * 4), "jsonl")
    assert (task.info.num_labels, task.info.label_names) == (3, ())


def test_the_names_that_the_hub_keeps_with_lists_come_along(tmp_path: Path) -> None:
    features = {"label": {"feature": {"names": list(NAMES), "_type": "ClassLabel"}, "_type": "Sequence"}}
    table = pa.table({"text": ["a", "b", "c"], "label": [[2], [], [0, 2]]})
    told = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    task = load(tmp_path / "a", told, "parquet")
    assert task.info.label_names == NAMES
    assert sets_of(task) == [["love"], [], ["fear", "love"]]


def test_fasttext_may_have_several_labels_a_line(tmp_path: Path) -> None:
    lines = [" ".join([*(f"__label__{name}" for name in row or ["calm"]), "words"]) for row in ROWS]
    task = load(tmp_path / "a", "\n".join(lines), "txt")
    assert sets_of(task) == [row or ["calm"] for row in ROWS]


def test_rows_without_splits_and_without_validation_are_cut(tmp_path: Path) -> None:
    folder = tmp_path / "a"
    folder.mkdir()
    (folder / "train.jsonl").write_text(json_lines(ROWS), encoding="utf-8")
    (folder / "test.jsonl").write_text(json_lines([[]] * 3), encoding="utf-8")
    task = tasks.load(str(folder))
    assert {split: table.num_rows for split, table in task.splits.items()} == {"train": 22, "validation": 2}
    assert "test hides its labels and counts as absent" in task.notes
    (folder / "train.jsonl").rename(folder / "all.jsonl")
    (folder / "test.jsonl").unlink()
    assert {s: table.num_rows for s, table in tasks.load(str(folder)).splits.items()} == {
        "train": 19, "validation": 2, "test": 3,
    }  # fmt: skip


FAULTS: dict[str, tuple[str, str, Mapping[str, Any], str]] = {
    "two separators": (csv_of(["a;b", "a|c"]), "csv", {"kind": "multilabel"}, "labels must have one separator between"),
    "no label": (csv_of(["", ""]), "csv", {"kind": "multilabel"}, "train: no row has a label"),
    "always the same": (csv_of(["a|b", "b|a"]), "csv", {"kind": "multilabel"}, "every row has the same"),
    "null": (json_lines([["a"], None, ["b"]]), "jsonl", {}, "train: label must not be null, but is in 1 row (line 2)"),
    "one list": (json_lines(["a", "b", "a", ["a", "b"]]), "jsonl", {}, "4 has ['a', 'b']). Mend"),
    "another kind": (
        json_lines(ROWS),
        "jsonl",
        {"kind": "classification"},
        'several labels a text are of "kind": "mult',
    ),
    "a kind without": (
        csv_of(["a", "b"]),
        "csv",
        {"kind": "classification", "label_separator": "|"},
        "label_separator: is",
    ),
    "an unknown name": (
        csv_of(["a|x", "b"]),
        "csv",
        {"label_separator": "|", "label_names": ["a", "b"]},
        "'x'. Known: a, b",
    ),
    "one of columns": (
        ONE_HOT.replace("0,1,1\n", "0,1,2\n", 1),
        "csv",
        {"columns": {"text_a": "comment", "label": ["joy", "love"]}},
        "hold 0 or 1 in every row, but love does not",
    ),
    "one of them always": (
        "text,a,b\nx,0,1\ny,1,0\n",
        "csv",
        {},
        '"label": ["a", "b"]} if a text may have several of them',
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_what_cannot_be_meant_is_told(fault: str, tmp_path: Path) -> None:
    content, ending, declared, said = FAULTS[fault]
    with pytest.raises(FaultsError) as refusal:
        load(tmp_path / "a", content, ending, **declared)
    assert said in str(refusal.value)


LABELS = st.lists(st.lists(st.text("abc ,;", min_size=1).map(str.strip).filter(bool), unique=True), min_size=1)


@given(rows=LABELS)
def test_what_is_written_as_a_list_is_read_back(rows: list[list[str]]) -> None:
    for written in (rows, [json.dumps(row) for row in rows], [str(row) for row in rows]):
        table = pa.table({"label": pa.array(written, pa.list_(pa.string()) if written is rows else pa.string())})
        faults: list[str] = []
        found = with_lists({"train": table}, None, faults, [])
        assert found["train"]["label"].to_pylist() == rows
        assert faults == []


def test_columns_that_are_no_label_are_passed_over(tmp_path: Path) -> None:
    others = {
        "bytes": [b"\xff", b"0"],
        "parts": [[0], [1]],
        "count": [0, 7],
        "gap": [1, None],
        "at": [{"x": 1}, {"x": 0}],
    }
    table = pa.table({"text": ["a", "b"], **others, "calm": [True, False], "glad": [1.0, 0.0]})
    task = load(tmp_path / "a", table, "parquet")
    assert task.info.label_names == ("calm", "glad")
    assert sets_of(task) == [["calm", "glad"], []]
    rows = [
        json.dumps({"text": text, "x": {"y": 1}, "calm": calm, "glad": 1 - calm * calm})
        for text, calm in (("a", 0), ("b", 2))
    ]
    with pytest.raises(FaultsError, match="needs a column label"):
        load(tmp_path / "b", "\n".join(rows), "jsonl")


def test_labels_are_a_matrix_for_whoever_trains() -> None:
    column = pa.FixedSizeListArray.from_arrays(pa.array([True, False, False, True, True, True]), 2)
    assert label_values(column).tolist() == [[True, False], [False, True], [True, True]]
    assert label_values(pa.array([3, 1])).tolist() == [3, 1]


@pytest.mark.parametrize(
    "labels",
    [
        ["['joy' 'love']", "['love']"],
        ["('joy', 'love')", "('love',)"],
        ["{'love', 'joy'}", "{'love'}"],
    ],
)
def test_lists_are_read_as_numpy_and_python_write_them(labels: list[str], tmp_path: Path) -> None:
    task = load(tmp_path / "task", csv_of(labels), "csv")
    assert sets_of(task) == [["joy", "love"], ["love"]]


@pytest.mark.parametrize(
    "written", [[1, 0, 1, 0], [1.0, 0.0, 1.0, 0.0], [True, False, True, False], ["1", "0", "1", "0"]]
)
@pytest.mark.parametrize("said", [{}, {"label_names": ["a", "b", "c", "never"]}])
def test_lists_of_0_and_1_are_a_place_a_label(written: list[Any], said: dict[str, Any], tmp_path: Path) -> None:
    none = [type(written[0])(0)] * 4
    task = load(tmp_path / "task", json_lines([written, none, written[::-1]]), "jsonl", **said)
    names = said.get("label_names", ["0", "1", "2", "3"])
    assert sets_of(task) == [[names[0], names[2]], [], [names[1], names[3]]]
    assert any("lists of 4 numbers of 0 and 1" in note for note in task.notes)


def test_lists_of_0_and_1_that_stand_once_are_labels(tmp_path: Path) -> None:
    task = load(tmp_path / "task", json_lines([[0, 1], [2, 1], [1, 0]]), "jsonl")
    assert sets_of(task) == [["0", "1"], ["1", "2"], ["0", "1"]]
    task = load(tmp_path / "both", json_lines([[0], [1], [0, 1]]), "jsonl")
    assert sets_of(task) == [["0"], ["1"], ["0", "1"]]


def test_the_suggested_task_json_names_the_columns_that_are_a_label_each(tmp_path: Path) -> None:
    content = "comment,toxic,threat\n" + "".join(f"text {n},{n % 2},{int(n % 3 == 0)}\n" for n in range(12))
    task = load(tmp_path / "task", content, "csv")
    said = suggest(task, {})
    assert said["columns"] == {"text_a": "comment", "label": ["toxic", "threat"]}
    assert load(tmp_path / "again", content, "csv", **said).fingerprint == task.fingerprint
