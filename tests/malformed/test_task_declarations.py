"""What a task says of itself in task.json, and folders of questions, that are not what they must be."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

CSV = "text_a,label\none text,0\nanother,1\na third,1\none more,0\n"
SCORES = "text_a,label\none text,0.5\nanother,1.5\na third,2\none more,0\n"


class Said(NamedTuple):
    """The content of task.json (text, or what is written as JSON), what must be answered, and the splits' rows."""

    content: Any
    answers: tuple[str, ...] = ()
    rows: str = CSV


def said(content: Any, *answers: str, rows: str = CSV) -> Said:
    return Said(content, answers, rows)


UNREADABLE = "task.json cannot be read"
TEXTS = {
    "empty": said("", UNREADABLE),
    "blank": said(" \n", UNREADABLE),
    "cut short": said('{"name": "n', UNREADABLE),
    "two objects": said("{}{}", UNREADABLE),
    "single quotes": said("{'name': 'n'}", UNREADABLE),
    "a trailing comma": said('{"name": "n",}', UNREADABLE),
    "YAML": said("name: n\n", UNREADABLE),
    "a key twice": said('{"kind": "classification", "kind": "regression"}', UNREADABLE, "every key must stand once"),
    "half a character": said('{"name": "\\ud83d"}', "every text must be of whole characters"),
    "a column twice": said('{"columns": {"text_a": "label", "label": "label"}}', "no column twice"),
    "what others call it": said('{"id2label": {"0": "a", "1": "b"}}', "did you mean 'label_names'?"),
    "latin-1": said('{"name": "größe"}'.encode("latin-1"), UNREADABLE),
    "utf-16": said('{"name": "n"}'.encode("utf-16"), UNREADABLE),
    "binary": said(bytes(range(256)), UNREADABLE),
    "very deep": said("[" * 100_000, UNREADABLE),
    "a long number": said('{"num_labels": 1' + "0" * 5000 + "}", UNREADABLE),
    "a byte order mark": said('\ufeff{"name": "n"}'),
    "null": said("null", "task.json: must be an object, but is NoneType"),
    "a number": said("3", "task.json: must be an object, but is int"),
    "a text": said('"classification"', "task.json: must be an object, but is str"),
    "a list": said('[{"name": "n"}]', "task.json: must be an object, but is list"),
    "an empty object": said("{}"),
    "remarks": said({"license": "CC0", "rows": {"train": 4}, "notes": [1, 2], "description": None}),
    "a key of nobody's": said({"größe": 3}, "unknown key 'größe'. Known: name, kind", "for remarks notes"),
}
VALUES = {
    **{
        f"name {value!r}": said({"name": value}, "task.json: name must be a non-empty string without zero bytes")
        for value in ("", 3, [], {}, True, "a\0b")
    },
    **{f"kind {value!r}": said({"kind": value}, "task.json: kind must be a string") for value in (3, [], {}, False)},
    **{f"pair {value!r}": said({"pair": value}, "pair must be true or false") for value in (0, 1, "yes", [], {})},
    **{
        f"num_labels {value!r}": said({"num_labels": value}, "task.json: num_labels must be a whole number")
        for value in ("2", 2.0, 2.5, True, [2], {}, float("nan"))
    },
    **{
        f"label_names {value!r}": said({"label_names": value}, "task.json: label_names must be a list of names")
        for value in ("ab", {"a": "b"}, {"0": 1.5}, {}, [0, 0.5], ["a", None], 3, [["a"]], [float("nan"), 1])
    },
    **{f"metric {value!r}": said({"metric": value}, "task.json: metric must be a string") for value in (3, ["f1"], {})},
    "an unknown kind": said({"kind": "clasification"}, "unknown kind 'clasification'", "did you mean 'classification'"),
    "an unknown metric": said({"metric": "acuracy"}, "unknown metric 'acuracy'", "did you mean 'accuracy'"),
    "a key misspelt": said({"label_name": ["a", "b"]}, "unknown key 'label_name'; did you mean 'label_names'"),
    "a key in capitals": said({"Metric": "f1"}, "unknown key 'Metric'; did you mean 'metric'"),
    **{
        f"columns {value!r}": said({"columns": value}, "task.json: columns must be an object like")
        for value in ("text", ["text"], {"label": "x"}, {"text_a": 3}, {"text": "text_a"})
    },
    **{
        f"delimiter {value!r}": said({"delimiter": value}, "delimiter must be one")
        for value in ("", ", ", 3, '"', "\n")
    },
    **{
        f"encoding {value!r}": said({"encoding": value}, "encoding must be an")
        for value in ("utf-9", 8, "rot13", "zip")
    },
    **{f"quoting {value!r}": said({"quoting": value}, "quoting must be standard or") for value in (True, "all", [])},
    **{f"header {value!r}": said({"header": value}, "header must be a list") for value in (False, "text_a", [], [1])},
    **{f"skip_bad_rows {value!r}": said({"skip_bad_rows": value}, "must be true or false") for value in (1, "yes", [])},
    "a column that is not there": said({"columns": {"text_a": "words"}}, "has no column 'words'", "text_a, label"),
    "columns of another header": said(
        {"header": ["a", "b"], "columns": {"text_a": "words"}}, "columns names words, which header does not"
    ),
    "a delimiter of another file": said({"delimiter": ";"}, "needs a column text_a, but has text_a,label"),
    "an encoding of another file": said({"encoding": "ascii"}, "is not ascii, as task.json says", rows=CSV + "ö,0\n"),
    "labels by name": said({"label_names": {"0": "no", "1": "yes"}}),
    "labels by number": said({"label_names": [0, 1]}),
    "labels by number, in an object": said({"label_names": {"0": 10, "1": 20.0}}),
    "a number twice": said({"label_names": [0, "0"]}, "label_names: must differ from each other"),
    "labels by name, from one": said({"label_names": {"1": "no", "2": "yes"}}, "unknown label '0'. Known: no, yes"),
    "broken rows": said({"skip_bad_rows": True}, rows=CSV + "x,y,1\n,0\n"),
    "scores that are none": said({"skip_bad_rows": True}, rows=SCORES + "x,nan\nx,inf\nx,\nx,oops\n"),
    "no labels": said({"num_labels": 0}, "num_labels: must be >= 2 for a classification, but got 0"),
    "fewer labels than none": said({"num_labels": -2}, "num_labels: must be >= 2"),
    "too few labels": said({"num_labels": 2}, "train: labels must be in 0..1, but got 2", rows=CSV + "x,2\n"),
    "too many names": said(
        {"num_labels": 2, "label_names": ["a", "b", "c"]}, "must be num_labels = 2 names, but got 3"
    ),
    "a name twice": said({"label_names": ["a", "a"]}, "label_names: must differ from each other"),
    "no names": said({"label_names": []}),
    "a metric of another kind": said({"metric": "pearson", "kind": "classification"}, "pearson fits a regression"),
    "a regression with names": said(
        {"kind": "regression", "label_names": ["a", "b"]}, "must be absent for a regression", rows=SCORES
    ),
    "a regression of many": said({"kind": "regression", "num_labels": 3}, "must be 1 or absent", rows=SCORES),
    "a regression measured by f1": said({"kind": "regression", "metric": "f1"}, "f1 fits a classific", rows=SCORES),
    "a classification of scores": said({"kind": "classification"}, "must be whole", rows=SCORES),
    "a regression of names": said(
        {"kind": "regression"}, "labels of a regression must be numbers", rows=CSV.replace(",0", ",a")
    ),
    "a pair that is none": said({"pair": True}, "needs a column text_b"),
    "questions without answers": said({"kind": "extractive_qa"}, "train: needs a file train.json"),
    "null at every key": said(dict.fromkeys(("name", "kind", "pair", "num_labels", "label_names", "metric"))),
    "a name with odd letters": said({"name": "größe 🐢/../x\n"}),
    "a billion labels": said({"num_labels": 10**9}),
    "everything at once": said(
        {"name": 3, "kind": "clas", "pair": "no", "num_labels": "2", "label_names": "ab", "metric": "bleu", "pairs": 1},
        "unknown key 'pairs'",
        "name must be a non-empty string",
        "unknown kind 'clas'",
        "pair must be true or false",
        "num_labels must be a whole number",
        "label_names must be a list of names",
        "unknown metric 'bleu'",
    ),
}

CONTEXT = "The quick brown fox jumps over the lazy dog."
ANSWER = {"text": "brown fox", "answer_start": 10}
QUESTION = {"id": "q1", "question": "Who jumps?", "answers": [ANSWER]}


def document(question: Mapping[str, Any] | None = None, **changes: Any) -> dict[str, Any]:
    """A sound file of one question, with changes to its question and to its paragraph."""
    paragraph = {"context": CONTEXT, "qas": [{**QUESTION, **(question or {})}], **changes}
    return {"version": "1.1", "data": [{"title": "Fox", "paragraphs": [paragraph]}]}


def without(key: str) -> dict[str, Any]:
    made = document()
    del made["data"][0]["paragraphs"][0]["qas"][0][key]
    return made


def answered(**changes: Any) -> dict[str, Any]:
    return document({"answers": [{**ANSWER, **changes}]})


OBJECTS = "must be a list of objects"
QUESTIONS: dict[str, tuple[Any, tuple[str, ...]]] = {
    "a sound file": (document(), ()),
    "empty": ("", ("cannot be read",)),
    "garbage": (b"\xff\xfe\x00", ("cannot be read",)),
    "cut short": (json.dumps(document())[:-20], ("cannot be read",)),
    "very deep": ("[" * 100_000, ("cannot be read",)),
    "a list": ([], ("must be an object with a list `data`, but is list",)),
    "null": (None, ("must be an object with a list `data`, but is NoneType",)),
    "no data": ({}, (f"every `data` {OBJECTS}",)),
    "data is an object": ({"data": {}}, (f"every `data` {OBJECTS}",)),
    "no articles": ({"data": []}, ("must have at least 1 question, but has 0",)),
    "articles are texts": ({"data": ["x"]}, (f"every `data` {OBJECTS}", "data[0]")),
    "no paragraphs": ({"data": [{}]}, (f"every `paragraphs` {OBJECTS}", "data[0].paragraphs")),
    "no context": (document(context=None), ("every paragraph must have a non-empty text `context`",)),
    "a blank context": (document(context=" \n"), ("every paragraph must have a non-empty text `context`",)),
    "a context of numbers": (document(context=3), ("every paragraph must have a non-empty text `context`",)),
    "questions are numbers": (document(qas=[1, 2]), (f"every `qas` {OBJECTS}", "qas[1]")),
    "no id": (without("id"), ("every question must have an `id`",)),
    "a list for an id": (document({"id": [3]}), ("every question must have an `id`, a non-empty text",)),
    "an id twice": (document(qas=[QUESTION, QUESTION]), ("every id must differ", "'q1' (2 times)")),
    "no question": (without("question"), ("every question must have a text `question`",)),
    "a list for a question": (document({"question": ["?"]}), ("every question must have a text `question`",)),
    "no answers": (without("answers"), ("every question must have an answer",)),
    "an empty list of answers": (document({"answers": []}), ("every question must have an answer",)),
    "a text for answers": (document({"answers": "fox"}), (f"every `answers` {OBJECTS}",)),
    "an empty answer": (answered(text=""), ("every answer must have a non-empty `text`",)),
    "an answer without a place": (answered(answer_start=None), ("a whole number `answer_start`",)),
    "a place that is true": (answered(answer_start=True), ("a whole number `answer_start`",)),
    "a place that is no whole number": (answered(answer_start=10.0), ("a whole number `answer_start`",)),
    "a place off by one": (answered(answer_start=11), ("every answer must stand in its context", "'brown fox' at 11")),
    "a place before the start": (answered(answer_start=-34), ("every answer must stand in its context",)),
    "a place after the end": (answered(answer_start=10**6), ("every answer must stand in its context", "nothing")),
    "a place beyond 64 bits": (answered(answer_start=10**30), ("every answer must stand in its context",)),
    "half a character": (document(context="\ud800" + CONTEXT, qas=[]), ("train.json",)),
    "half a character in a question": (document({"question": "\ud800?"}), ("train.json",)),
    "several faults": (
        document({"id": "", "question": 3, "answers": [{"text": "cat", "answer_start": 4}]}),
        ("an `id`", "a text `question`", "every answer must stand in its context"),
    ),
}
CASES = {
    **{f"declared: {name}": case for name, case in {**TEXTS, **VALUES}.items()},
    **{f"questions: {name}": case for name, case in QUESTIONS.items()},
}


def as_bytes(content: Any) -> bytes:
    if isinstance(content, bytes):
        return content
    return (content if isinstance(content, str) else json.dumps(content)).encode("utf-8")


@pytest.fixture
def sweep_over(sound: Callable, tmp_path: Path) -> Callable[[Path], str]:
    def write(task: Path) -> str:
        (tmp_path / "sweep.json").write_text(json.dumps({**sound(), "tasks": [str(task)]}), encoding="utf-8")
        return str(tmp_path / "sweep.json")

    return write


def test_a_declaration_is_refused_or_sound(
    sweep_over: Callable, call: Callable, tmp_path: Path, subtests: pytest.Subtests
) -> None:
    for number, (name, case) in enumerate([*TEXTS.items(), *VALUES.items()]):
        with subtests.test(name):
            task = tmp_path / f"task-{number}"
            task.mkdir()
            for split in ("train", "validation"):
                (task / f"{split}.csv").write_text(case.rows, encoding="utf-8")
            (task / "task.json").write_bytes(as_bytes(case.content))
            ended = call("run", sweep_over(task))
            if case.answers:
                ended.assert_refused(f"task {task}: ", *case.answers)
            else:
                assert ended.is_accepted, ended


def test_a_file_of_questions_is_refused_or_sound(
    sweep_over: Callable, call: Callable, tmp_path: Path, subtests: pytest.Subtests
) -> None:
    for number, (name, (content, answers)) in enumerate(QUESTIONS.items()):
        with subtests.test(name):
            task = tmp_path / f"task-{number}"
            task.mkdir()
            (task / "train.json").write_bytes(as_bytes(content))
            (task / "validation.json").write_bytes(as_bytes(document()))
            ended = call("run", sweep_over(task))
            if answers:
                ended.assert_refused(f"task {task}: ", "train", *answers)
            else:
                assert ended.is_accepted, ended


def test_folders_of_questions_lack_and_double_splits_like_others(
    sweep_over: Callable, call: Callable, tmp_path: Path
) -> None:
    task = tmp_path / "task"
    task.mkdir()
    (task / "train.json").write_bytes(as_bytes(document()))
    call("run", sweep_over(task)).assert_refused("validation: needs a file validation.json or dev-v1.1.json")
    (task / "validation.json").write_bytes(as_bytes(document()))
    (task / "dev-v1.1.json").write_bytes(as_bytes(document()))
    call("run", sweep_over(task)).assert_refused("validation: one file may hold a split")
    (task / "dev-v1.1.json").unlink()
    (task / "task.json").write_text('{"kind": "extractive_qa", "pair": false, "num_labels": 3, "metric": "accuracy"}')
    call("run", sweep_over(task)).assert_refused("pair: must be true or absent", "num_labels", "metric: accuracy fits")


@settings(max_examples=40, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
@given(
    values=st.dictionaries(
        st.sampled_from(["name", "kind", "pair", "num_labels", "label_names", "metric", "lable_names", "note"]),
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.lists(st.text(max_size=3)),
    )
)
def test_any_declaration_is_refused_or_taken(
    values: dict[str, Any], sound: Callable, call: Callable, tmp_path_factory: pytest.TempPathFactory
) -> None:
    place = tmp_path_factory.mktemp("any")
    for split in ("train", "validation"):
        (place / f"{split}.csv").write_text(CSV, encoding="utf-8")
    (place / "task.json").write_bytes(as_bytes(values))
    (place / "sweep.json").write_text(json.dumps({**sound(), "tasks": [str(place)]}), encoding="utf-8")
    ended = call("run", str(place / "sweep.json"))
    if not ended.is_accepted:
        ended.assert_refused(f"task {place}: ")
