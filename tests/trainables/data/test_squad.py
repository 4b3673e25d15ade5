"""Question answering from SQuAD's files: what is read, and everything that may be wrong with them."""

from __future__ import annotations

import copy
import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from trainables import tasks
from trainables.data.squad import read_squad
from trainables.estimate.preview import preview_task
from trainables.faults import FaultsError

Qa = dict[str, Any]
CONTEXT = "Dom João sailed from Rio in 1821."


def qa(name: str, question: str = "Who sailed?", *answers: tuple[str, int]) -> Qa:
    return {
        "id": name,
        "question": question,
        "answers": [{"text": text, "answer_start": start} for text, start in answers or [("Dom João", 0)]],
    }


def document(*qas: Qa, context: str = CONTEXT) -> dict[str, Any]:
    return {"version": "1.1", "data": [{"title": "Brazil", "paragraphs": [{"context": context, "qas": list(qas)}]}]}


def write(folder: Path, task: Any = None, **files: Any) -> str:
    """Files by name, dots and dashes as in `train_v1_1`."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folder / f"{name.replace('_v1_1', '-v1.1')}.json").write_text(json.dumps(content), encoding="utf-8")
    if task is not None:
        (folder / "task.json").write_text(json.dumps(task), encoding="utf-8")
    return str(folder)


def faults_of(reference: str) -> tuple[str, ...]:
    with pytest.raises(FaultsError) as refusal:
        tasks.load(reference)
    return refusal.value.faults


GOOD = document(qa("a"), qa("b", "When?", ("1821", 28), ("in 1821", 25)))


class TestWhatIsRead:
    def test_a_folder_of_questions_is_a_task_without_a_word_more(self, tmp_path: Path) -> None:
        task = tasks.load(write(tmp_path / "mine", train=GOOD, validation=GOOD))
        info = task.info
        assert (info.name, info.kind, info.pair, info.num_labels) == ("mine", "extractive_qa", True, 2)
        assert (info.label_names, info.metric, info.source) == ((), "squad_f1", str(tmp_path / "mine"))
        assert list(task.splits) == ["train", "validation"]
        assert task.splits["train"].to_pylist() == [
            {"id": "a", "text_a": "Who sailed?", "text_b": CONTEXT, "answers": [{"text": "Dom João", "start": 0}]},
            {
                "id": "b",
                "text_a": "When?",
                "text_b": CONTEXT,
                "answers": [{"text": "1821", "start": 28}, {"text": "in 1821", "start": 25}],
            },
        ]

    def test_the_official_file_names_are_known(self, tmp_path: Path) -> None:
        files = {"train_v1_1": GOOD, "dev_v1_1": document(qa("c")), "test_v1_1": GOOD, "validation_hard": GOOD}
        task = tasks.load(write(tmp_path, **files))
        assert {name: table.num_rows for name, table in task.splits.items()} == {
            "train": 2,
            "validation": 1,
            "test": 2,
            "validation_hard": 2,
        }

    def test_a_plan_knows_its_facts_and_rows(self, tmp_path: Path) -> None:
        preview = preview_task(write(tmp_path, train=GOOD, validation=GOOD))
        # The rows of a training are windows, of which only a tokenizer knows the number.
        assert (preview.info.kind, preview.train_rows, preview.missing) == ("extractive_qa", None, ())
        assert preview.fingerprint is not None

    def test_a_test_split_that_hides_its_answers_counts_as_absent(self, tmp_path: Path) -> None:
        hidden = document({"id": "a", "question": "Who?"}, {"id": "b", "question": "When?", "answers": []})
        assert "test" not in tasks.load(write(tmp_path, train=GOOD, validation=GOOD, test=hidden)).splits

    def test_task_json_may_name_it_and_choose_the_metric(self, tmp_path: Path) -> None:
        said = {"name": "brazil", "kind": "extractive_qa", "metric": "squad_em"}
        info = tasks.load(write(tmp_path, task=said, train=GOOD, validation=GOOD)).info
        assert (info.name, info.metric) == ("brazil", "squad_em")

    def test_rows_of_another_format_beside_them_are_the_task_unless_declared(self, tmp_path: Path) -> None:
        write(tmp_path, train=GOOD, validation=GOOD)
        for split in ("train", "validation"):
            (tmp_path / f"{split}.csv").write_text("text_a,label\nx,0\ny,1\n", encoding="utf-8")
        assert tasks.load(str(tmp_path)).info.kind == "classification"
        assert tasks.load(write(tmp_path, task={"kind": "extractive_qa"})).info.kind == "extractive_qa"

    def test_the_fingerprint_is_of_questions_contexts_and_answers_only(self, tmp_path: Path) -> None:
        def fingerprint_of(name: str, train: Any) -> str:
            return tasks.load(write(tmp_path / name, train=train, validation=GOOD)).fingerprint

        base = fingerprint_of("base", GOOD)
        renamed = copy.deepcopy(GOOD)
        renamed["data"][0]["title"] = renamed["data"][0]["paragraphs"][0]["qas"][0]["id"] = "else"
        assert fingerprint_of("renamed", renamed) == base
        others = [
            document(qa("a", "Who left?"), *GOOD["data"][0]["paragraphs"][0]["qas"][1:]),
            document(qa("a"), qa("b", "When?", ("1821", 28))),
            document(qa("a"), qa("b", "When?", ("in 1821", 25), ("1821", 28))),
            document(qa("a", "Who sailed?", ("o", 1)), qa("b")),
            document(qa("a", "Who sailed?", ("o", 7)), qa("b")),
        ]
        prints = {base, *(fingerprint_of(str(index), other) for index, other in enumerate(others))}
        assert len(prints) == 1 + len(others)


class TestFaults:
    @pytest.mark.parametrize(
        ("content", "fault"),
        [
            ([], "must be an object with a list `data`, but is list"),
            ({}, "every `data` must be a list of objects, but 1 does not: data"),
            ({"data": []}, "must have at least 1 question, but has 0"),
            ({"data": [3]}, "every `data` must be a list of objects, but 1 does not: data[0]"),
            ({"data": [{}]}, "every `paragraphs` must be a list of objects, but 1 does not: data[0].paragraphs"),
            (document(qa("a"), context=" "), "non-empty text `context`, but 1 does not: data[0].paragraphs[0]"),
            (
                document(qa(""), qa("b")),
                "must have an `id`, a non-empty text or a whole number, but 1 does not: data[0].paragraphs[0].qas[0]",
            ),
            (
                document(qa("a"), qa("a"), qa("a")),
                "every id must differ from all others of the split, but 1 does not: 'a' (3 times)",
            ),
            (
                document(qa("a") | {"question": None}),
                "must have a text `question`, but 1 does not: data[0].paragraphs[0].qas[0] (id 'a')",
            ),
            (
                document(qa("a") | {"answers": []}),
                "(those that have none are of SQuAD v2.0, another task), but 1 does not",
            ),
            (document(qa("a") | {"answers": "Rio"}), "every `answers` must be a list of objects, but 1 does not"),
            (
                document(qa("a", "Who?", ("", 0))),
                "a non-empty `text` and a whole number `answer_start`, but 1 does not",
            ),
            (
                document(qa("a", "Who?", ("Rio", "21"))),
                "a non-empty `text` and a whole number `answer_start`, but 1 does not",
            ),
            (document(qa("a", "Who?", ("Rio", 22))), "(id 'a').answers[0]: 'Rio' at 22, where there is 'io '"),
            (document(qa("a", "Who?", ("Rio", -12))), "'Rio' at -12, where there is nothing"),
            (document(qa("a", "Who?", ("Rio", 99))), "'Rio' at 99, where there is nothing"),
        ],
    )
    def test_a_faulty_file_says_what_and_where(self, tmp_path: Path, content: Any, fault: str) -> None:
        (only,) = faults_of(write(tmp_path, train=content, validation=GOOD))
        assert only.startswith("train: train.json: ")
        assert fault in only

    def test_a_file_that_is_no_json_says_so(self, tmp_path: Path) -> None:
        write(tmp_path, validation=GOOD)
        (tmp_path / "train.json").write_text("{", encoding="utf-8")
        assert faults_of(str(tmp_path))[0].startswith("train: train.json: cannot be read: ")

    def test_all_faults_of_all_files_come_in_one_message(self, tmp_path: Path) -> None:
        train = document(qa("a", "Who?", ("Rio", 0)), qa("a"), {"question": "When?"})
        faults = faults_of(write(tmp_path, task={"metric": "accuracy"}, train=train))
        assert len(faults) == 6
        assert "metric: accuracy fits a classification, but the task is an extractive_qa" in faults[0]
        assert "Fitting: squad_em, squad_f1" in faults[0]
        assert "validation: needs a file validation.json or dev-v1.1.json" in faults[-1]

    def test_many_places_are_counted_and_the_first_named(self, tmp_path: Path) -> None:
        train = document(*(qa(str(row), "Who?", ("Rio", row)) for row in range(9)))
        (fault,) = faults_of(write(tmp_path, train=train, validation=GOOD))
        assert "but 9 do not: " in fault
        assert fault.count("qas[") == 5
        assert fault.endswith("; ...")

    def test_two_files_for_one_split_are_refused(self, tmp_path: Path) -> None:
        (fault,) = faults_of(write(tmp_path, train=GOOD, train_v1_1=GOOD, validation=GOOD))
        assert fault == "train: one file may hold a split, but there are train-v1.1.json, train.json"

    def test_a_test_split_with_some_answers_is_checked(self, tmp_path: Path) -> None:
        test = document(qa("a"), {"id": "b", "question": "When?"})
        (fault,) = faults_of(write(tmp_path, train=GOOD, validation=GOOD, test=test))
        assert fault.startswith("test: test.json: every question must have an answer")

    def test_a_declaration_that_contradicts_the_kind_is_refused(self, tmp_path: Path) -> None:
        said = {"kind": "extractive_qa", "num_labels": 3, "label_names": ["a", "b", "c"], "pair": False}
        assert faults_of(write(tmp_path, task=said, train=GOOD, validation=GOOD)) == (
            "num_labels and label_names: must be absent where kind is extractive_qa",
            "pair: must be true or absent where kind is extractive_qa",
        )

    def test_a_declared_kind_without_its_files_says_what_is_needed(self, tmp_path: Path) -> None:
        write(tmp_path, task={"kind": "extractive_qa"})
        (tmp_path / "train.csv").write_text("text_a,label\nx,0\n", encoding="utf-8")
        faults = faults_of(str(tmp_path))
        assert "train: needs a file train.json or train-v1.1.json, but" in faults[0]
        assert "train.csv" in faults[0]

    def test_a_dataset_of_the_hub_cannot_be_of_this_kind(self) -> None:
        (fault,) = faults_of(f"hub/someone/squad@{'a' * 40}?kind=extractive_qa")
        assert "format of SQuAD v1.1" in fault


def test_a_blank_question_and_a_byte_order_mark_are_taken_as_they_are(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    path.write_text(json.dumps(document(qa("a", "  "))), encoding="utf-8-sig")
    table, faults = read_squad(path)
    assert faults == []
    assert table is not None
    assert table["text_a"].to_pylist() == ["  "]


@pytest.mark.parametrize("ending", [".json", ".json.gz", ".jsonl.gz", "-v2.0.json"])
def test_questions_are_found_in_any_file_of_json(ending: str, tmp_path: Path) -> None:
    row = {"id": 1, "question": "Who?", "context": "a b c", "answers": {"text": ["b"], "answer_start": [2]}}
    nested = {"id": "1", "question": "Who?", "answers": [{"text": "b", "answer_start": 2}]}
    articles = json.dumps({"data": [{"paragraphs": [{"context": "a b c", "qas": [nested]}]}]})
    contents = {".json": json.dumps([row], indent=1), ".json.gz": articles, "-v2.0.json": articles}
    content = contents.get(ending, json.dumps(row) + "\n").encode()
    for split in ("train", "dev"):
        (tmp_path / f"{split}{ending}").write_bytes(gzip.compress(content) if ending.endswith(".gz") else content)
    task = tasks.load(str(tmp_path))
    assert (task.info.kind, list(task.splits)) == ("extractive_qa", ["train", "validation"])
    assert task.splits["train"]["text_b"].to_pylist() == ["a b c"]
