"""Folders laid out as others lay them out: names of splits, parts, formats, and splits that are cut."""

from __future__ import annotations

import gzip
import json
import logging
import zipfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.ipc
import pyarrow.parquet as pq
import pytest

from trainables import tasks
from trainables.faults import FaultsError

CSV = "text_a,label\none,no\ntwo,yes\nthree,no\n"
MANY = "text_a,label\n" + "".join(f"text {row},{'rare' if row % 10 == 3 else 'usual'}\n" for row in range(40))
TABLE = pa.table({"text": ["one", "two", "three"], "label": pa.array([0, 1, 0], pa.int64())})


def lay_out(folder: Path, files: Mapping[str, str | bytes]) -> str:
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return str(folder)


def with_classes(table: pa.Table, *names: str) -> pa.Table:
    """As `datasets` writes it: the names of the classes in the schema."""
    features = {"label": {"names": list(names), "_type": "ClassLabel"}}
    return table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})


def parquet(table: pa.Table) -> bytes:
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink)
    return sink.getvalue().to_pybytes()


def arrow_stream(table: pa.Table) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as stream:
        stream.write_table(table)
    return sink.getvalue().to_pybytes()


class TestNamesOfSplits:
    @pytest.mark.parametrize("validation", ["dev", "val", "valid", "eval", "Validation", "DEV"])
    @pytest.mark.parametrize("train", ["Train", "training"])
    def test_other_names_of_splits_are_taken_and_said(self, train: str, validation: str, tmp_path: Path) -> None:
        task = tasks.load(lay_out(tmp_path, {f"{train}.csv": CSV, f"{validation}.csv": CSV, "TEST.csv": CSV}))
        assert list(task.splits) == ["train", "validation", "test"]
        assert f"validation is {validation}.csv" in task.notes

    def test_a_split_s_own_name_wins_and_what_is_not_read_is_said(self, tmp_path: Path) -> None:
        other = "text_a,label\nfour,no\nfive,yes\n"
        task = tasks.load(lay_out(tmp_path, {"train.csv": CSV, "validation.csv": CSV, "dev.csv": other}))
        assert task.splits["validation"].num_rows == 3
        assert task.notes == ("not read, since no split is made of them: dev.csv",)

    def test_further_splits_may_be_called_so_too(self, tmp_path: Path) -> None:
        task = tasks.load(lay_out(tmp_path, {"train.csv": CSV, "dev.csv": CSV, "dev_mismatched.csv": CSV}))
        assert list(task.splits) == ["train", "validation", "validation_mismatched"]

    def test_the_end_of_a_name_is_enough_where_no_other_is_there(self, tmp_path: Path) -> None:
        task = tasks.load(
            lay_out(tmp_path, {"reviews_train.csv": CSV, "reviews-dev.csv": CSV, "reviews_test.csv": CSV})
        )
        assert list(task.splits) == ["train", "validation", "test"]

    def test_a_test_split_without_a_column_of_labels_counts_as_absent(self, tmp_path: Path) -> None:
        files = {"train.tsv": "sentence\tlabel\na\t0\nb\t1\n", "test.tsv": "index\tsentence\n0\tc\n"}
        task = tasks.load(lay_out(tmp_path, {**files, "dev.tsv": files["train.tsv"]}))
        assert list(task.splits) == ["train", "validation"]
        assert "test has no labels and counts as absent" in task.notes

    def test_the_archive_that_a_file_came_in_is_no_rival(self, tmp_path: Path) -> None:
        files: dict[str, str | bytes] = {"Train.csv": CSV, "Train.zip": b"PK", "Dev.csv": CSV}
        assert list(tasks.load(lay_out(tmp_path, files)).splits) == ["train", "validation"]


class TestSplitsThatAreCut:
    def test_validation_is_cut_off_train_where_there_is_none(self, tmp_path: Path) -> None:
        task = tasks.load(lay_out(tmp_path, {"train.csv": MANY, "test.csv": MANY}))
        assert {split: table.num_rows for split, table in task.splits.items()} == {
            "train": 36,
            "validation": 4,
            "test": 40,
        }
        assert task.info.source.endswith("validation cut off train at random (seed 0), 10 % of each class")
        assert any("cut off train" in note for note in task.notes)

    def test_the_cut_is_of_each_class_in_order_and_the_same_every_time(self, tmp_path: Path) -> None:
        rows = [(f"text {row}", "abc"[min(row % 7, 2)]) for row in range(350)]
        content = "text_a,label\n" + "".join(f"{text},{label}\n" for text, label in rows)
        splits = tasks.load(lay_out(tmp_path / "one", {"train.csv": content})).splits
        again = tasks.load(lay_out(tmp_path / "two", {"train.csv": content})).splits
        assert splits["validation"].equals(again["validation"])
        assert np.bincount(splits["validation"]["label"].to_numpy()).tolist() == [5, 5, 25]
        kept = sorted(int(text.split()[1]) for part in splits.values() for text in part["text_a"].to_pylist())
        assert kept == list(range(350))
        for part in splits.values():
            places = [int(text.split()[1]) for text in part["text_a"].to_pylist()]
            assert places == sorted(places)
        assert splits["validation"]["text_a"].to_pylist()[:3] == ["text 0", "text 21", "text 38"]

    def test_a_class_of_one_row_stays_in_train(self, tmp_path: Path) -> None:
        content = "text_a,label\n" + "".join(f"text {row},{row % 2}\n" for row in range(40)) + "last,2\n"
        splits = tasks.load(lay_out(tmp_path, {"train.csv": content})).splits
        assert (2 in splits["train"]["label"].to_pylist(), splits["validation"].num_rows) == (True, 4)

    def test_one_file_of_any_name_is_cut_into_three(self, tmp_path: Path) -> None:
        task = tasks.load(lay_out(tmp_path, {"spam.csv": MANY, "README.md": "# Spam"}))
        assert [table.num_rows for table in task.splits.values()] == [32, 4, 4]
        assert "all rows are spam.csv" in task.notes
        assert task.fingerprint == tasks.load(lay_out(tmp_path / "all", {"all.csv": MANY})).fingerprint


class TestLayoutsOfTheHub:
    def test_parts_are_read_in_order_with_the_names_of_classes(self, tmp_path: Path) -> None:
        table = with_classes(TABLE, "no", "yes")
        files = {f"data/train-0000{part}-of-00002.parquet": parquet(table.slice(part, 1 + part)) for part in (1, 0)}
        task = tasks.load(lay_out(tmp_path, {**files, "data/validation-00000-of-00001.parquet": parquet(table)}))
        assert task.splits["train"].to_pydict() == {"text_a": ["one", "two", "three"], "label": [0, 1, 0]}
        assert task.info.label_names == ("no", "yes")

    def test_parts_that_differ_are_refused(self, tmp_path: Path) -> None:
        files = {
            "data/train-00000-of-00002.parquet": parquet(TABLE),
            "data/train-00001-of-00002.parquet": parquet(TABLE.drop_columns(["label"])),
        }
        with pytest.raises(FaultsError, match="all parts must have the columns and types of the first"):
            tasks.load(lay_out(tmp_path, {**files, "validation.parquet": parquet(TABLE)}))

    def test_what_datasets_saves_is_read(self, tmp_path: Path) -> None:
        table = with_classes(TABLE, "no", "yes")
        files = {f"{split}/data-00000-of-00001.arrow": arrow_stream(table) for split in ("train", "validation")}
        task = tasks.load(lay_out(tmp_path, {**files, "dataset_dict.json": '{"splits": ["train", "validation"]}'}))
        assert (task.splits["validation"].num_rows, task.info.label_names) == (3, ("no", "yes"))

    def test_names_of_classes_change_no_fingerprint(self, tmp_path: Path) -> None:
        prints = {
            tasks.load(
                lay_out(tmp_path / str(len(names)), {f"{s}.parquet": parquet(table) for s in ("train", "validation")})
            ).fingerprint
            for names in ((), ("a", "b"), ("a", "b", "never"))
            for table in [with_classes(TABLE, *names) if names else TABLE]
        }
        assert len(prints) == 1

    def test_questions_a_row_are_a_task_of_question_answering(self, tmp_path: Path) -> None:
        row = {"id": "1", "question": "Who?", "context": "a b c", "answers": {"text": ["b"], "answer_start": [2]}}
        nested = {"id": "1", "question": "Who?", "answers": [{"text": "b", "answer_start": 2}]}
        document = {"data": [{"paragraphs": [{"context": "a b c", "qas": [nested]}]}]}
        flat = {f"{split}.jsonl": json.dumps(row) + "\n" for split in ("train", "validation")}
        own = {f"{split}.json": json.dumps(document) for split in ("train", "validation")}
        tables = {f"{split}.parquet": parquet(pa.Table.from_pylist([row])) for split in ("train", "validation")}
        loaded = [tasks.load(lay_out(tmp_path / str(n), files)) for n, files in enumerate((flat, own, tables))]
        assert len({task.fingerprint for task in loaded}) == 1
        assert {task.info.kind for task in loaded} == {"extractive_qa"}

    def test_faults_of_questions_a_row_name_the_row(self, tmp_path: Path) -> None:
        row = {"id": "1", "question": "Who?", "context": "a b c", "answers": {"text": ["c"], "answer_start": [2]}}
        with pytest.raises(FaultsError, match=r"row 1 \(id '1'\).answers\[0\]: 'c' at 2, where there is 'b'"):
            tasks.load(lay_out(tmp_path, {f"{split}.jsonl": json.dumps(row) for split in ("train", "validation")}))


def test_the_same_rows_are_the_same_task_however_they_are_packed(tmp_path: Path) -> None:
    rows = [{"text_a": text, "label": label} for text, label in (("one", "no"), ("two", "yes"), ("three", "no"))]
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    contents: Mapping[str, str | bytes] = {
        ".csv": CSV,
        ".csv.gz": gzip.compress(CSV.encode()),
        ".jsonl": lines,
        ".jsonl.gz": gzip.compress(lines.encode()),
        ".ndjson": lines,
        ".json": json.dumps(rows, indent=1),
        ".txt": "".join(f"__label__{row['label']} {row['text_a']}\n" for row in rows),
        ".tsv": CSV.replace(",", "\t"),
        ".CSV": CSV.replace(",", ";").encode("utf-16"),
    }
    prints = {
        ending: tasks.load(
            lay_out(tmp_path / ending, {f"{split}{ending}": content for split in ("train", "dev")})
        ).fingerprint
        for ending, content in contents.items()
    }
    assert len(set(prints.values())) == 1, prints


def test_rows_left_out_are_counted_and_warned_of(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    content = CSV + "four,no,more\n,yes\nfive,\n"
    files = {"train.csv": content, "validation.csv": CSV, "task.json": '{"skip_bad_rows": true}'}
    with caplog.at_level(logging.WARNING):
        task = tasks.load(lay_out(tmp_path, files))
    assert task.splits["train"]["text_a"].to_pylist() == ["one", "two", "three"]
    said = ["train: left out 1 broken row: line 5", "train: left out 2 rows (lines 6, 7) without text or label"]
    assert list(task.notes) == said
    assert [record.getMessage().partition(": ")[2] for record in caplog.records] == said


def test_every_fault_of_every_file_is_in_one_message(tmp_path: Path) -> None:
    files = {
        "train.csv": CSV + "a,b,c\n,no\n",
        "validation.jsonl": '{"text_a": 3, "label": "no"}\noops\n{"text_a": "x"}\n',
        "test.tsv": "text_a\tlabel\nx\n",
        "task.json": '{"metrics": "f1"}',
    }
    with pytest.raises(FaultsError) as refusal:
        tasks.load(lay_out(tmp_path, files))
    for said in (
        "unknown key 'metrics'; did you mean 'metric'?",
        "train: train.csv cannot be read: every row must have 2 columns",
        "train: text_a must not be null or empty, but is in 1 row (line 6)",
        "line 1 has int: 3",
        "line 2 is not JSON",
        "test: test.tsv cannot be read: every row must have 2 columns as the header has, but line 2 of 1 row has not",
    ):
        assert said in str(refusal.value)


class TestFoldersOfParts:
    @pytest.mark.parametrize(
        "called",
        [
            "{split}/data.csv",
            "{split}/{split}.csv",
            "{split}.csv/part-00000-0a1b-c000.csv",
            "{split}/part-00000-0a1b-c000.json",
            "plain_text/{split}-00000-of-00001.csv",
            "data/{split}-00000-of-00001-1a2b3c4d5e6f7a8b.csv",
            "unpacked/{split}.csv",
            "{split}-v2.csv",
            "{split}_reviews.csv",
        ],
    )
    def test_splits_are_found_where_programs_put_them(self, called: str, tmp_path: Path) -> None:
        rows = "".join(
            json.dumps({"text": text, "label": label}) + "\n" for text, label in (("one", 0), ("two", 1)) * 2
        )
        content = rows[: rows.rindex("{")] if called.endswith(".json") else CSV
        files = {called.format(split=split): content for split in ("train", "validation", "test")}
        written = lay_out(tmp_path, {**files, "train/_SUCCESS": "", ".DS_Store": b"\0", "._train.csv": b"\0\5"})
        task = tasks.load(written)
        assert {split: table.num_rows for split, table in task.splits.items()} == dict.fromkeys(
            ("train", "validation", "test"), 3
        )

    def test_parts_of_one_type_or_another_are_put_together(self, tmp_path: Path) -> None:
        other = pa.table({"text": pa.array(["four"], pa.large_string()), "label": pa.array([1], pa.int32())})
        files = {"train/part-0.parquet": parquet(TABLE), "train/part-1.parquet": parquet(other)}
        task = tasks.load(lay_out(tmp_path, {**files, "validation.parquet": parquet(TABLE)}))
        assert task.splits["train"].to_pydict() == {"text_a": ["one", "two", "three", "four"], "label": [0, 1, 0, 1]}

    @pytest.mark.parametrize("other", ["train/clean.csv", "train/train.parquet", "train/train.csv.gz"])
    def test_files_that_are_no_parts_of_one_are_refused(self, other: str, tmp_path: Path) -> None:
        with pytest.raises(FaultsError, match="train: one file may hold a split, but there are"):
            tasks.load(lay_out(tmp_path, {"train/train.csv": CSV, other: CSV, "validation.csv": CSV}))

    def test_several_folders_that_could_be_a_task_are_named(self, tmp_path: Path) -> None:
        files = {f"{language}/{split}.csv": CSV for language in ("de", "en") for split in ("train", "validation")}
        with pytest.raises(FaultsError, match="each of its folders de, en could be a task: name one"):
            tasks.load(lay_out(tmp_path, files))

    def test_a_folder_with_a_declaration_of_its_own_is_to_be_named(self, tmp_path: Path) -> None:
        files = {"mine/train.csv": CSV, "mine/validation.csv": CSV, "mine/task.json": "{}"}
        with pytest.raises(FaultsError, match="each of its folders mine could be a task"):
            tasks.load(lay_out(tmp_path, files))

    @pytest.mark.parametrize("name", ["data.zip", "data.tar.gz", "train.gz", "train.csv.bz2"])
    def test_what_is_packed_otherwise_is_to_be_unpacked(self, name: str, tmp_path: Path) -> None:
        with pytest.raises(FaultsError, match=f"; unpack {name}, or pack one file each"):
            tasks.load(lay_out(tmp_path, {name: b"packed"}))


class TestWhatIsCalledAsRows:
    def test_a_link_to_nothing_is_no_absent_split(self, tmp_path: Path) -> None:
        (tmp_path / "validation.csv").symlink_to("/nowhere/validation.csv")
        with pytest.raises(FaultsError, match=r"validation.csv: must be a file, but is a link to /nowhere/validation"):
            tasks.load(lay_out(tmp_path, {"train.csv": MANY}))

    def test_nor_is_an_empty_folder(self, tmp_path: Path) -> None:
        (tmp_path / "validation.csv").mkdir()
        with pytest.raises(FaultsError, match=r"validation.csv: must be a file, or a folder with the parts of one"):
            tasks.load(lay_out(tmp_path, {"train.csv": MANY}))

    def test_a_declaration_in_capitals_is_not_left_unread(self, tmp_path: Path) -> None:
        with pytest.raises(FaultsError, match=r"Task.json: must be called task.json"):
            tasks.load(lay_out(tmp_path, {"train.csv": CSV, "validation.csv": CSV, "Task.json": "{}"}))

    @pytest.mark.parametrize(
        ("content", "what"),
        [
            ('{"text": "one", "label": "no"}\n', "holds JSON, so call it .jsonl"),
            ("[\n", "holds JSON, so call it .jsonl"),
            ("<!DOCTYPE html>\n<html>", "is a web page"),
        ],
    )
    def test_what_can_be_no_table_is_said(self, content: str, what: str, tmp_path: Path) -> None:
        with pytest.raises(FaultsError, match=f"train.csv cannot be read: {what}"):
            tasks.load(lay_out(tmp_path, {"train.csv": content, "validation.csv": CSV}))

    @pytest.mark.parametrize("content", [b"PAR1\0\0", b"PK\x03\x04\0", b"\x1f\x8b\x08\0"])
    def test_another_format_by_the_name_of_a_text_says_which(self, content: bytes, tmp_path: Path) -> None:
        with pytest.raises(FaultsError, match=r"train.csv cannot be read: is no text but .*so call it"):
            tasks.load(lay_out(tmp_path, {"train.csv": content, "validation.csv": CSV}))


def test_the_matched_half_of_mnli_is_its_validation(tmp_path: Path) -> None:
    files = {"train.csv": CSV, "dev_matched.csv": CSV, "dev_mismatched.csv": CSV}
    assert list(tasks.load(lay_out(tmp_path, files)).splits) == ["train", "validation", "validation_mismatched"]


def test_arrow_and_feather_are_read_as_files_and_as_streams(tmp_path: Path) -> None:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_file(sink, TABLE.schema) as file:
        file.write_table(TABLE)
    files = {"train.feather": sink.getvalue().to_pybytes(), "validation.arrow": arrow_stream(TABLE)}
    splits = tasks.load(lay_out(tmp_path, files)).splits
    assert splits["train"].equals(splits["validation"])


def test_rows_that_datasets_saved_without_splits_are_cut(tmp_path: Path) -> None:
    table = pa.concat_tables([TABLE] * 8)
    files = {f"data-0000{part}-of-00002.arrow": arrow_stream(table) for part in (0, 1)}
    task = tasks.load(lay_out(tmp_path, {**files, "state.json": "{}", "dataset_info.json": "{}"}))
    assert [split.num_rows for split in task.splits.values()] == [38, 5, 5]


@pytest.mark.parametrize("ending", [".csv.zip", ".zip"])
def test_a_zip_may_hold_folders_and_what_systems_leave(ending: str, tmp_path: Path) -> None:
    for split in ("train", "validation"):
        with zipfile.ZipFile(tmp_path / f"{split}{ending}", "w") as archive:
            for name, content in {"data/": "", f"data/{split}.csv": CSV, "data/.DS_Store": "x"}.items():
                archive.writestr(name, content)
    assert tasks.load(str(tmp_path)).splits["train"].num_rows == 3


def test_fasttext_may_have_tabs_and_endings_of_its_own(tmp_path: Path) -> None:
    content = "__label__no\tone text\n__label__yes two\n__label__no\tthree\n"
    files = {f"cooking.{split}": content for split in ("train", "valid")}
    task = tasks.load(lay_out(tmp_path, files))
    assert task.info.label_names == ("no", "yes")
    assert task.splits["train"]["text_a"].to_pylist() == ["one text", "two", "three"]
