"""What is odd in a task is said, once for each oddity, and nothing is said of a task in which nothing is."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from trainables.data.audit import word_pieces
from trainables.data.audit.checks import checks
from trainables.data.audit.examine import BRIEF, WHOLE, Examination, examine, percentiles
from trainables.data.rows import Declared, make_task
from trainables.task import Task

BACKBONE = "minilm"
SIZES = {"train": 120, "validation": 60, "test": 60}


def texts(split: str, count: int) -> list[str]:
    """Of different words, so that no two are alike."""
    return [f"the {split} number {row} of the shop" for row in range(count)]


def task_of(
    *, labels: Mapping[str, Sequence[Any]] | None = None, text_b: bool = False, said: Mapping[str, Any] | None = None,
    **given: Sequence[str],
) -> Task:  # fmt: skip
    """A task of two classes in which nothing is odd, but for the texts of a split and the labels that are given."""
    tables = {}
    for split, size in SIZES.items():
        rows = list(given.get(split, texts(split, size)))
        columns = {"text_a": rows, "label": list((labels or {}).get(split, ["bad", "good"] * len(rows)))[: len(rows)]}
        if text_b:
            columns["text_b"] = rows
        tables[split] = pa.table(columns)
    return make_task(Declared(name="shop", source="memory", **(said or {})), tables)


def found_in(task: Task, **options: Any) -> Examination:
    return examine(task, backbone=BACKBONE, **{"max_length": 128, **options})


def names_in(task: Task, **options: Any) -> list[str]:
    return [warning.name for warning in found_in(task, **options).warnings]


TRAIN = texts("train", 120)
ODD: dict[str, tuple[Task, str]] = {
    "alike-labels": (
        task_of(labels={split: ["good", "Good ", " good", "bad"] * 30 for split in SIZES}),
        "3 of 4 labels look like others (' good', 'Good ', 'good')",
    ),
    "null-words-as-labels": (
        task_of(labels=dict.fromkeys(SIZES, ["None", "good", "-"] * 40)),
        "'-', 'None' are taken for names of classes, in 160 rows",
    ),
    "several-labels-in-one": (
        task_of(labels=dict.fromkeys(SIZES, ["joy|love", "joy", "love|fear", "fear|joy"] * 30)),
        "3 of 4 classes are several others with '|' between them ('fear|joy', 'joy|love', 'love|fear')",
    ),
    "many-classes": (
        task_of(labels={"train": [f"id{n}" for n in range(120)], "validation": ["id1"] * 60, "test": ["id2"] * 60}),
        "120 classes in 120 rows",
    ),
    "strong-imbalance": (
        task_of(labels=dict.fromkeys(SIZES, (["common"] * 11 + ["rare"]) * 10)),
        "always answers 'common' has an accuracy of 0.917",
    ),
    "f1-of-the-frequent-class": (
        task_of(labels=dict.fromkeys(SIZES, ["fraud", "ok", "ok"] * 40), said={"metric": "f1"}),
        "f1 is that of 'ok', which 67% of train's rows are, and not that of 'fraud'",
    ),
    "classes-without-rows": (
        task_of(said={"label_names": ("bad", "good", "so-so")}),
        "1 of 3 classes never occurs in train: 'so-so'",
    ),
    "few-rows-of-a-class": (
        task_of(labels={"train": ["bad"] * 59 + ["good"] * 58 + ["odd"] * 3}),
        "1 of 3 classes has fewer than 5 rows in train: 'odd' (3)",
    ),
    "shares-differ": (
        task_of(labels={"validation": ["bad"] * 5 + ["good"] * 55}),
        "'bad' is 8.3% of validation and 50.0% of train",
    ),
    "few-rows": (task_of(test=texts("test", 10)), "test has 10 rows: one row more or less"),
    "rows-in-two-splits": (
        task_of(test=[*TRAIN[:4], *texts("test", 56)]),
        "4 of 60 rows of test stand in other splits too (train 4), such as 'the train number 0 of the shop'",
    ),
    "near-duplicates": (
        task_of(test=["The TRAIN, number 7 of the shop!", *texts("test", 59)]),
        "1 of 60 rows of test stand in other splits too (train 1) but for capitals",
    ),
    "conflicting-labels": (
        task_of(train=[*TRAIN[:119], TRAIN[0]]),
        "1 text stands with several labels, in 2 rows, such as 'the train number 0 of the shop' with 'bad', 'good'",
    ),
    "repeated-rows": (task_of(train=[*TRAIN[:100], *TRAIN[:20]]), "20 of 120 rows of train repeat a text of the same"),
    "blank-texts": (task_of(test=["...", *texts("test", 59)]), "1 of 240 texts hold nothing but blanks and punct"),
    "null-words-as-texts": (
        task_of(test=["N/A", *texts("test", 59)]),
        "1 of 240 texts are nothing but a word like 'N/A'",
    ),
    "wrongly-decoded-texts": (task_of(test=["a crÃ¨me brûlée", *texts("test", 59)]), "such as 'a crÃ¨me brûlée'"),
    "control-characters": (task_of(test=["a\x00b", *texts("test", 59)]), "1 of 240 texts hold control characters"),
    "markup-in-texts": (
        task_of(test=[f"<b>{text}</b>" for text in texts("test", 60)]),
        "60 of 240 texts hold HTML, such as '<b>the test",
    ),
    "texts-of-full-length": (
        task_of(train=[f"{text} {'and so on ' * 50}"[:300] for text in TRAIN]),
        "120 of 240 texts in text_a have just 300",
    ),
    "equal-pairs": (task_of(text_b=True), "240 of 240 pairs are a text and itself"),
    "cut-texts": (task_of(train=[f"{text} {'word ' * 200}" for text in TRAIN]), "max_length 256 would cut 0%"),
    "unknown-word-pieces": (
        task_of(train=[f"{text} 房间很好服务周到" for text in TRAIN]),
        "unknown to minilm, such as '房', '间'",
    ),
    "texts-cut-small": (
        task_of(
            **{split: [f"الخدمة سيئة جدا {row}" for row in range(60 * n, 60 * n + 60)] for n, split in enumerate(SIZES)}
        ),
        "minilm takes the words apart into single characters",
    ),
}


def test_every_check_has_a_task_that_it_warns_of() -> None:
    assert ODD.keys() == checks().keys()


@pytest.mark.parametrize("name", ODD)
def test_what_is_odd_is_said(name: str) -> None:
    task, sentence = ODD[name]
    said = [warning.sentence for warning in found_in(task).warnings if warning.name == name]
    assert any(sentence in each for each in said), said


@pytest.mark.parametrize("effort", [WHOLE, BRIEF])
def test_of_a_task_without_oddities_nothing_is_said(effort: Any) -> None:
    assert names_in(task_of(), effort=effort) == []


def test_classes_of_numbers_that_differ_in_their_sign_are_not_alike() -> None:
    assert names_in(task_of(labels=dict.fromkeys(SIZES, [-1, 1] * 60))) == []


def test_a_class_that_another_split_lacks_is_said_unless_it_is_one_of_many_rare_ones() -> None:
    lacking = task_of(labels={"train": ["bad", "good", "odd"] * 40})
    assert names_in(lacking).count("classes-without-rows") == 2
    many = {split: [f"c{row % 100}" for row in range(size)] for split, size in SIZES.items()}
    assert "classes-without-rows" not in names_in(task_of(labels=many))


def test_a_silenced_warning_is_counted_and_not_shown() -> None:
    task, _ = ODD["rows-in-two-splits"]
    by_argument = found_in(task, silence=["rows-in-two-splits"])
    by_task = found_in(dataclasses.replace(task, silence=("rows-in-two-splits",)))
    for found in (by_argument, by_task):
        assert [warning.name for warning in found.silenced] == ["rows-in-two-splits"]
        assert found.warnings == ()


def test_scores_are_no_classes() -> None:
    found = found_in(task_of(labels=dict.fromkeys(SIZES, np.linspace(0, 5, 120).tolist())))
    assert found.warnings == ()
    assert found.splits["train"].classes == {}
    assert found.splits["train"].scores["max"] == 5.0


def test_the_facts_of_a_split_are_those_of_all_its_rows() -> None:
    task = task_of(labels={"validation": ["bad"] * 20 + ["good"] * 40})
    found = found_in(task, effort=dataclasses.replace(WHOLE, most_rows=30))
    assert found.drawn_rows == dict.fromkeys(SIZES, 30)
    assert found_in(task).drawn_rows == {}
    few = found_in(task, effort=dataclasses.replace(WHOLE, most_bytes=2000)).drawn_rows
    assert all(1 <= few[name] < size for name, size in SIZES.items())
    facts = found.splits["validation"]
    assert (facts.rows, facts.classes, facts.majority) == (60, {"bad": 20, "good": 40}, 20 / 60)
    assert facts.characters == percentiles(np.array([len(text) for text in texts("validation", 60)]))


def test_word_pieces_are_those_of_the_tokenizer_as_training_sees_them() -> None:
    pieces = found_in(task_of(train=["word " * 200, *TRAIN[1:]])).pieces
    assert pieces is not None
    assert (len(pieces.lengths), pieces.lengths.max(), pieces.positions) == (240, 202, 512)  # with [CLS] and [SEP]
    assert pieces.share_cut == pytest.approx(1 / 240)


def test_no_more_is_tokenised_than_asked_for() -> None:
    few = dataclasses.replace(WHOLE, most_tokenized_rows=50)
    short = dataclasses.replace(WHOLE, most_tokenized_characters=300)
    for effort, at_most in ((few, 50), (short, 12)):
        pieces = found_in(task_of(), effort=effort).pieces
        assert pieces is not None
        assert 1 <= len(pieces.lengths) <= at_most
        assert pieces.of_rows == 240


def test_without_a_tokenizer_the_rest_is_said(tmp_path: Any) -> None:
    assert word_pieces.find_reader(str(tmp_path)) is None
    found = examine(ODD["few-rows"][0], backbone=str(tmp_path), max_length=128)
    assert (found.pieces, [warning.name for warning in found.warnings]) == (None, ["few-rows"])


def test_equal_calls_give_equal_answers() -> None:
    first, second = (found_in(ODD["cut-texts"][0], effort=BRIEF) for _ in range(2))
    assert first.warnings == second.warnings
    assert first.splits == second.splits


def test_texts_of_several_labels_count_for_each_of_them() -> None:
    sets = [["joy", "love"], ["joy"], [], ["fear"]]
    labels = {split: [sets[row % 4] for row in range(size)] for split, size in SIZES.items()}
    labels["validation"] = [["joy"] if row % 2 else [] for row in range(SIZES["validation"])]
    labels["train"][3] = ["fear", "JOY"]
    found = examine(task_of(labels=labels), backbone=BACKBONE, max_length=32)
    assert dict(found.splits["train"].classes) == {"JOY": 1, "fear": 30, "joy": 60, "love": 30}
    assert found.splits["train"].majority is None
    names = [warning.name for warning in found.warnings]
    assert names.count("alike-labels") == names.count("few-rows-of-a-class") == 1
    assert "classes-without-rows" in names
