"""What is kept of a model's outputs: the class before any rounding, and probabilities in half precision."""

from __future__ import annotations

import hashlib
import json

import numpy as np
import pyarrow as pa
import pytest
from scipy.special import log_softmax

from trainables.predictions import FEW_CLASSES, SplitRows, predictions_from, predictions_table, row_hash, rows_of

TEXTS = pa.table({"text_a": ["ein Wort", "größe 🐢", "ein Wort"], "label": pa.array([0, 1, 1])})


def outputs_of(num_rows: int, num_classes: int, spread: float = 3.0) -> np.ndarray:
    return (spread * np.random.default_rng(0).standard_normal((num_rows, num_classes))).astype(np.float32)


def some_rows(count: int) -> SplitRows:
    return SplitRows(id="r", hashes=np.arange(count, dtype=np.uint64), labels=np.zeros(count, np.int64))


class TestRows:
    def test_a_hash_can_be_made_from_the_texts_in_one_line(self) -> None:
        for texts in (["größe 🐢"], ["a", "b"]):
            assert row_hash(*texts) == hashlib.sha256(json.dumps(texts).encode()).hexdigest()[:16]
        assert row_hash("ab", "c") != row_hash("a", "bc") != row_hash("abc")

    def test_equal_texts_have_equal_hashes_and_the_rows_an_id(self) -> None:
        rows = rows_of(TEXTS, "classification")
        assert [f"{number:016x}" for number in rows.hashes.tolist()] == [
            row_hash(text) for text in TEXTS["text_a"].to_pylist()
        ]
        assert rows.labels.tolist() == [0, 1, 1]  # type: ignore[union-attr]
        assert rows_of(pa.concat_tables([TEXTS.slice(0, 1), TEXTS.slice(1)]), "classification").id == rows.id

    @pytest.mark.parametrize(
        "changed",
        [
            TEXTS.take([1, 0, 2]),
            TEXTS.slice(0, 2),
            TEXTS.set_column(1, "label", pa.array([0, 1, 0])),
            TEXTS.append_column("text_b", pa.array(["", "", ""])),
        ],
        ids=["order", "fewer", "label", "pair"],
    )
    def test_other_rows_have_another_id(self, changed: pa.Table) -> None:
        assert rows_of(changed, "classification").id != rows_of(TEXTS, "classification").id

    def test_of_questions_the_right_answers_are_the_labels(self) -> None:
        answers = [[{"text": "in 1821", "start": 4}, {"text": "1821", "start": 7}], [{"text": "Rio", "start": 0}]]
        table = pa.table({"text_a": ["When?", "Where?"], "text_b": ["In 1821", "Rio"], "answers": answers})
        rows = rows_of(table, "extractive_qa")
        assert rows.labels == (("in 1821", "1821"), ("Rio",))
        fewer = table.set_column(2, "answers", pa.array([answers[0][:1], answers[1]]))
        assert rows_of(fewer, "extractive_qa").id != rows.id


class TestScores:
    @pytest.mark.parametrize("num_classes", [2, FEW_CLASSES])
    def test_of_few_classes_all_probabilities_are_kept(self, num_classes: int) -> None:
        outputs = outputs_of(50, num_classes)
        found = predictions_from(outputs, outputs.argmax(axis=1), some_rows(50), "classification")
        assert found.classes is None
        assert found.scores is not None
        assert found.scores.dtype == np.float16
        expected = log_softmax(outputs.astype(np.float64), axis=1)
        np.testing.assert_allclose(found.scores, expected, rtol=2**-11, atol=2**-25)

    def test_of_many_classes_the_best_five_are_kept_with_their_own_probabilities(self) -> None:
        outputs = outputs_of(50, 77)
        found = predictions_from(outputs, outputs.argmax(axis=1), some_rows(50), "classification")
        assert found.scores is not None
        assert found.classes is not None
        expected = log_softmax(outputs.astype(np.float64), axis=1)
        assert found.classes.tolist() == np.argsort(-expected, axis=1)[:, :5].tolist()
        assert found.classes[:, 0].tolist() == list(found.values)
        best = np.sort(expected, axis=1)[:, :-6:-1]
        np.testing.assert_allclose(found.scores, best, rtol=2**-11)

    def test_classes_that_half_precision_cannot_tell_apart_are_still_told_apart(self) -> None:
        outputs = np.array([[0.0, 1e-6], [1e-6, 0.0], [1.0, 1.0]], np.float32)
        found = predictions_from(outputs, outputs.argmax(axis=1), some_rows(3), "classification")
        assert found.scores is not None
        assert (found.scores[:, 0] == found.scores[:, 1]).all()
        assert list(found.values) == [1, 0, 0]
        many = np.zeros((1, 20), np.float32)
        tied = predictions_from(many, many.argmax(axis=1), some_rows(1), "classification")
        assert tied.classes is not None
        assert tied.classes.tolist() == [[0, 1, 2, 3, 4]]

    def test_a_score_beyond_half_precision_is_its_lowest_number(self) -> None:
        outputs = np.array([[1e6, 0.0], [0.0, -np.inf]], np.float32)
        found = predictions_from(outputs, outputs.argmax(axis=1), some_rows(2), "classification")
        assert found.scores is not None
        assert found.scores.tolist() == [[0.0, -65504.0], [0.0, -65504.0]]

    def test_numbers_stay_as_they_are_and_do_not_hold_the_outputs(self) -> None:
        outputs = outputs_of(5, 1)
        found = predictions_from(outputs, outputs[:, 0], some_rows(5), "regression")
        assert isinstance(found.values, np.ndarray)
        assert found.values.base is None
        assert found.values.tolist() == outputs[:, 0].tolist()
        assert found.scores is None


def test_a_table_has_the_same_columns_for_every_kind_of_task() -> None:
    outputs = outputs_of(3, 2)
    rows = rows_of(TEXTS, "classification")
    classes = predictions_from(outputs, outputs.argmax(axis=1), rows, "classification")
    numbers = predictions_from(outputs, outputs[:, 0], rows, "regression")
    answers = SplitRows(id="r", hashes=rows.hashes[:1], labels=(("a", "b"),))
    texts = predictions_from(outputs, ["b"], answers, "extractive_qa")
    table = predictions_table({"validation": classes, "test": classes})
    assert table["split"].to_pylist() == ["validation"] * 3 + ["test"] * 3
    assert table["row"].to_pylist() == [0, 1, 2, 0, 1, 2]
    assert table["row_hash"].to_pylist() == 2 * [row_hash(text) for text in TEXTS["text_a"].to_pylist()]
    assert predictions_table({"test": numbers}).column_names == table.column_names
    assert predictions_table({"test": texts}).to_pylist() == [
        {
            "split": "test",
            "row": 0,
            "row_hash": row_hash("ein Wort"),
            "label": ["a", "b"],
            "prediction": "b",
            "scores": None,
            "classes": None,
        }
    ]
