"""Task folders: four formats, an optional task.json, and every fault in one message."""

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
from trainables.faults import FaultsError

Rows = Mapping[str, list[Any]]
GOOD: Rows = {"text_a": ["one text", "another", "a third"], "label": [0, 1, 1]}
PAIRS: Rows = {"text_a": ["one text", "another"], "text_b": ["its fellow", "his brother"], "label": [0, 1]}


def write(folder: Path, *, task: Mapping[str, Any] | None = None, ending: str = ".parquet", **splits: Rows) -> str:
    folder.mkdir(exist_ok=True)
    if task is not None:
        (folder / "task.json").write_text(json.dumps(task), encoding="utf-8")
    for split, rows in splits.items():
        path, table = folder / f"{split}{ending}", pa.table(dict(rows))
        if ending == ".parquet":
            pa.parquet.write_table(table, path)
        elif ending == ".csv":
            pa.csv.write_csv(table, path)
        elif ending == ".tsv":
            lines = ["\t".join(table.column_names), *("\t".join(map(str, row.values())) for row in table.to_pylist())]
            path.write_text("\n".join(lines) + "\n", encoding="utf-8")
        else:
            path.write_text("".join(json.dumps(row) + "\n" for row in table.to_pylist()), encoding="utf-8")
    return str(folder)


def faults_of(reference: str) -> str:
    with pytest.raises(FaultsError) as refusal:
        tasks.load(reference)
    return str(refusal.value)


class TestFormats:
    @pytest.mark.parametrize("rows", [GOOD, PAIRS, {**PAIRS, "label": [0.5, 4.25]}], ids=["single", "pair", "scores"])
    def test_the_same_rows_are_the_same_task_in_every_format(self, tmp_path: Path, rows: Rows) -> None:
        loaded = [
            tasks.load(write(tmp_path / ending[1:], ending=ending, train=rows, validation=rows, test=rows))
            for ending in (".parquet", ".csv", ".tsv", ".jsonl")
        ]
        assert len({task.fingerprint for task in loaded}) == 1
        assert all(task.splits["test"].to_pydict() == dict(rows) for task in loaded)

    def test_csv_is_quoted_and_tsv_is_not(self, tmp_path: Path) -> None:
        csv = 'label,text_a,idx\n1,"he said ""no"", then\nleft",7\n0,NA,8\n'
        tsv = 'text_a\tlabel\n"an open quotation mark\t1\nhe said "no"\t0\n'
        (tmp_path / "train.csv").write_text(csv, encoding="utf-8")
        (tmp_path / "validation.tsv").write_text("\ufeff" + tsv, encoding="utf-8")
        splits = tasks.load(str(tmp_path)).splits
        assert splits["train"].to_pydict() == {"text_a": ['he said "no", then\nleft', "NA"], "label": [1, 0]}
        assert splits["validation"]["text_a"].to_pylist() == ['"an open quotation mark', 'he said "no"']

    def test_other_text_types_of_arrow_are_text(self, tmp_path: Path) -> None:
        table = pa.table(dict(GOOD))
        for split, kind in (("train", pa.large_string()), ("validation", pa.dictionary(pa.int32(), pa.string()))):
            column = table["text_a"].cast(pa.string()).cast(kind)
            pa.parquet.write_table(table.set_column(0, "text_a", column), tmp_path / f"{split}.parquet")
        assert tasks.load(str(tmp_path)).splits["validation"].to_pydict() == dict(GOOD)

    @pytest.mark.parametrize(
        ("name", "content", "reason"),
        [
            ("train.csv", "text_a,label\nx,1,2\n", "every row must have 2 columns"),
            ("train.csv", "", "has no header and no rows"),
            ("train.jsonl", '{"text_a": "x"\n', "line 1 is not JSON"),
            ("train.jsonl", '{"text_a": "x", "label": 0}\n[1]\n', "line 2: must be an object"),
            ("train.jsonl", '{"text_a": "x", "label": 0}\n{"text_a": 3, "label": 0}\n', "line 2 has int: 3"),
            ("train.parquet", "no parquet", "cannot be read"),
        ],
    )
    def test_a_file_that_cannot_be_read_says_why(self, tmp_path: Path, name: str, content: str, reason: str) -> None:
        write(tmp_path, validation=GOOD)
        (tmp_path / name).write_text(content)
        assert f"train: {name} cannot be read: " in faults_of(str(tmp_path))
        assert reason in faults_of(str(tmp_path))

    def test_two_files_for_one_split_are_refused(self, tmp_path: Path) -> None:
        write(tmp_path, ending=".csv", train=GOOD)
        assert "there are train.parquet, train.csv" in faults_of(write(tmp_path, train=GOOD, validation=GOOD))

    def test_a_folder_called_like_a_partition_adds_no_column(self, tmp_path: Path) -> None:
        (tmp_path / "label=7").mkdir()
        assert tasks.load(write(tmp_path / "label=7" / "x", train=GOOD, validation=GOOD)).info.num_labels == 2

    def test_a_changed_file_is_read_again(self, tmp_path: Path) -> None:
        first = tasks.load(write(tmp_path, train=GOOD, validation=GOOD))
        assert tasks.load(str(tmp_path)) is first
        second = tasks.load(write(tmp_path, train=PAIRS, validation=PAIRS))
        assert second.info.pair
        assert second.fingerprint != first.fingerprint


class TestWhatIsInferred:
    def test_classes_without_a_task_json(self, tmp_path: Path) -> None:
        info = tasks.load(write(tmp_path / "my_task", train=GOOD, validation=GOOD)).info
        assert (info.name, info.kind, info.pair, info.num_labels) == ("my_task", "classification", False, 2)
        assert (info.label_names, info.metric, info.source) == ((), "accuracy", str(tmp_path / "my_task"))

    def test_names_are_sorted_and_numbered(self, tmp_path: Path) -> None:
        rows = {"text_a": ["a", "b", "c"], "label": ["spam", "ham", "spam"]}
        task = tasks.load(write(tmp_path, ending=".csv", train=rows, validation=rows))
        assert task.info.label_names == ("ham", "spam")
        assert task.splits["train"]["label"].to_pylist() == [1, 0, 1]

    def test_numbers_that_are_not_whole_are_a_regression(self, tmp_path: Path) -> None:
        info = tasks.load(write(tmp_path, train={**PAIRS, "label": [0.0, 2.5]}, validation=PAIRS)).info
        assert (info.kind, info.num_labels, info.metric) == ("regression", 1, "pearson_and_spearman")

    def test_whole_floats_are_classes_unless_declared_scores(self, tmp_path: Path) -> None:
        rows = {**GOOD, "label": [0.0, 1.0, 1.0]}
        assert tasks.load(write(tmp_path / "a", train=rows, validation=rows)).info.kind == "classification"
        for name, said in (("b", {"kind": "regression"}), ("c", {"metric": "pearson"}), ("d", {"num_labels": 1})):
            assert tasks.load(write(tmp_path / name, task=said, train=rows, validation=rows)).info.kind == "regression"


class TestTaskJson:
    def test_what_it_says_is_taken_and_further_keys_are_welcome(self, tmp_path: Path) -> None:
        said = {"name": "n", "kind": "classification", "pair": False, "num_labels": 3, "metric": "f1"}
        said |= {
            "label_names": ["x", "y", "z"],
            "rows": {"train": 3},
            "license": "CC0",
            "paper_table": "GLUE",
            "notes": "",
        }
        info = tasks.load(write(tmp_path, task=said, train=GOOD, validation=GOOD)).info
        assert (info.name, info.num_labels, info.label_names, info.metric) == ("n", 3, ("x", "y", "z"), "f1")

    def test_declared_names_decide_what_text_labels_mean(self, tmp_path: Path) -> None:
        rows = {"text_a": ["a", "b"], "label": ["1", "2"]}
        said = {"label_names": ["2", "1"]}
        task = tasks.load(write(tmp_path, task=said, ending=".csv", train=rows, validation=rows))
        assert task.splits["train"]["label"].to_pylist() == [1, 0]

    @pytest.mark.parametrize(
        ("said", "fault"),
        [
            ({"label_name": ["a", "b"]}, "did you mean 'label_names'"),
            ({"metrics": "f1"}, "did you mean 'metric'"),
            ({"metric": "acuracy"}, "did you mean 'accuracy'"),
            ({"metric": "pearson", "kind": "classification"}, "pearson fits a regression, but the task is a classif"),
            ({"kind": "clasification"}, "did you mean 'classification'"),
            ({"pair": True}, "train: needs a column text_b, but has text_a, label"),
            ({"pair": "no"}, "pair must be true or false, but got 'no'"),
            ({"num_labels": 3, "label_names": ["a", "b"]}, "must be num_labels = 3 names, but got 2"),
            ({"num_labels": True}, "num_labels must be a whole number"),
            ({"num_labels": 0}, "num_labels: must be >= 2"),
            ({"label_names": ["a", "a"]}, "must differ"),
            ({"kind": "regression", "num_labels": 2}, "num_labels: must be 1 or absent"),
            ({"kind": "regression", "label_names": ["a"]}, "must be absent for a regression"),
            ([], "must be an object, but is list"),
        ],
    )
    def test_what_is_wrong_with_it_is_said(self, tmp_path: Path, said: Any, fault: str) -> None:
        assert fault in faults_of(write(tmp_path, task=said, train=GOOD, validation=GOOD))

    def test_one_that_is_no_json_is_refused(self, tmp_path: Path) -> None:
        write(tmp_path, train=GOOD, validation=GOOD)
        (tmp_path / "task.json").write_text("{")
        assert "task.json cannot be read" in faults_of(str(tmp_path))


class TestRows:
    @pytest.mark.parametrize(
        ("train", "fault"),
        [
            ({"text_a": ["x", None, "z"], "label": [0, 1, 1]}, "text_a must not be null or empty, but is in 1 row (2)"),
            (
                {"text_a": ["", "y", " \t"], "label": [0, 1, 1]},
                "must not be null or empty, but is in 2 rows (1, 3)",
            ),
            ({"text_a": [1, 2, 3], "label": [0, 1, 1]}, "text_a must be text, but is int64"),
            ({"words": ["x", "y"], "label": [0, 1]}, "needs a column text_a, but has words, label"),
            ({"text_a": ["x", "y"], "mark": [0, 1]}, "needs a column label, but has text_a, mark"),
            ({"text_a": ["x", "y"], "label": [0, None]}, "label must not be null, but is in 1 row (2)"),
            ({"text_a": ["x", "y"], "label": [0, 0]}, "must have at least two classes, but every label is 0"),
            ({"text_a": pa.array([], pa.string()), "label": pa.array([], pa.int64())}, "at least 1 row, but has 0"),
        ],
    )
    def test_a_faulty_train_split_is_refused(self, tmp_path: Path, train: Rows, fault: str) -> None:
        message = faults_of(write(tmp_path, train=train, validation=GOOD))
        assert "- train: " in message
        assert fault in message

    @pytest.mark.parametrize(
        ("said", "labels", "fault"),
        [
            ({"num_labels": 2}, [0, 5, -3], "labels must be in 0..1, but got -3, 5 in 2 rows (2, 3)"),
            ({"label_names": ["a", "b"]}, ["a", "bb", "b"], "unknown label 'bb'"),
            ({"num_labels": 2}, [0.0, 0.5, 1.0], "labels of a classification must be whole, but 1 row (2) are not"),
            ({"kind": "regression"}, [0.0, float("nan"), 1.5], "labels must be finite, but 1 row (2) are not"),
            ({"kind": "regression"}, ["x", "y", "z"], "labels of a regression must be numbers, but got 'x', 'y', 'z'"),
        ],
    )
    def test_labels_that_do_not_fit_are_refused(
        self, tmp_path: Path, said: Mapping[str, Any], labels: list[Any], fault: str
    ) -> None:
        rows = {**GOOD, "label": labels}
        message = faults_of(write(tmp_path, task=said, train=rows, validation=rows))
        assert f"train: {fault}" in message
        assert f"validation: {fault}" in message

    def test_declared_classes_may_be_missing_from_the_rows(self, tmp_path: Path) -> None:
        rows = {**GOOD, "label": [0, 2, 2]}
        assert tasks.load(write(tmp_path, task={"num_labels": 4}, train=rows, validation=rows)).info.num_labels == 4

    def test_a_text_b_that_is_declared_away_is_refused(self, tmp_path: Path) -> None:
        message = faults_of(write(tmp_path, task={"pair": False}, train=PAIRS, validation=PAIRS))
        assert "train: pair is false, but there is a column text_b" in message

    @pytest.mark.parametrize("labels", [[-1, -1], [None, None], [-1.0, None], ["-1", "-1"], ["", ""]])
    def test_a_test_split_without_labels_counts_as_absent(self, tmp_path: Path, labels: list[Any]) -> None:
        hidden = {"text_a": ["x", "y"], "label": labels}
        assert list(tasks.load(write(tmp_path, train=GOOD, validation=GOOD, test=hidden)).splits) == [
            "train",
            "validation",
        ]

    def test_a_test_split_with_some_labels_is_checked(self, tmp_path: Path) -> None:
        message = faults_of(write(tmp_path, train=GOOD, validation=GOOD, test={**GOOD, "label": [0, -1, 1]}))
        assert "test: labels must be in 0..1, but got -1 in 1 row (2)" in message

    def test_all_faults_come_in_one_message(self, tmp_path: Path) -> None:
        train = {"text_a": ["x", ""], "label": [0, 9]}
        said = {"num_labels": 2, "metric": "bleu", "pairs": False}
        with pytest.raises(FaultsError) as refusal:
            tasks.load(write(tmp_path, task=said, train=train, valdiation=train))
        assert len(refusal.value.faults) == 5  # pairs, another file, bleu, an empty text, a label out of range

    def test_a_missing_split_is_named_with_what_there_is(self, tmp_path: Path) -> None:
        message = faults_of(write(tmp_path, train=GOOD, deft=GOOD))
        assert "validation: needs a file validation{.parquet,.csv,.tsv,.jsonl}" in message
        assert "deft.parquet, train.parquet" in message


class TestReferences:
    def test_a_folder_that_is_not_there_is_refused_with_what_there_is(self) -> None:
        message = faults_of("sentiments")
        assert "no such folder" in message
        assert "toy/acceptability" in message
        assert "glue/cola" in message

    def test_a_path_with_a_dot_is_a_folder_even_where_a_family_has_the_name(self, tmp_path, monkeypatch) -> None:
        monkeypatch.chdir(tmp_path)
        (tmp_path / "toy").mkdir()
        write(tmp_path / "toy" / "sentiment", train=GOOD, validation=GOOD)
        assert tasks.load("./toy/sentiment").splits["train"].num_rows == 3
        assert tasks.load(str(tmp_path / "toy" / "sentiment")).splits["train"].num_rows == 3
        assert tasks.load("toy/sentiment").splits["train"].num_rows > 3

    def test_a_relative_folder_needs_no_prefix(self, tmp_path, monkeypatch) -> None:
        monkeypatch.chdir(tmp_path)
        write(tmp_path / "mine", train=GOOD, validation=GOOD)
        assert tasks.describe("mine").name == "mine"
        assert tasks.describe("folder/mine") == tasks.describe("mine")


def test_texts_are_kept_apart_in_the_fingerprint(tmp_path: Path) -> None:
    prints = set()
    for index, texts in enumerate((["ab", "c"], ["a", "bc"], ["c", "ab"])):
        rows = {"text_a": texts, "label": [0, 1]}
        prints.add(tasks.load(write(tmp_path / str(index), train=rows, validation=GOOD)).fingerprint)
    said = {"metric": "f1"}
    prints.add(tasks.load(write(tmp_path / "f1", task=said, train=rows, validation=GOOD)).fingerprint)
    assert len(prints) == 4
