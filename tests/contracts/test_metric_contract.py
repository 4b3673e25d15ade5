"""What a metric must do, whichever it is. Every metric of trainables/metrics.py is tested the moment it exists."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest

from trainables import metrics, tasks
from trainables.faults import FaultsError
from trainables.metrics import METRICS, Metric, TaskKind

NUM_ROWS = 40
NUM_LABELS = (2, 5)  # classes of a task; metrics of other kinds do not see it
WORDS = ("red", "green", "blue", "grey")


class Rows:
    """What is right of a task's rows, and answers that are right, random or degenerate."""

    def __init__(self, kind: TaskKind, num_labels: int, seed: int = 0) -> None:
        self.kind, self.num_labels = kind, num_labels
        self.rng = np.random.default_rng(seed)
        self.labels: Any = self.random()
        if kind == "extractive_qa":
            self.labels = [(text, "another " + text) for text in self.labels]

    def random(self) -> Any:
        if self.kind == "classification":
            return self.rng.permutation(np.arange(NUM_ROWS) % self.num_labels)
        if self.kind == "regression":
            return self.rng.normal(size=NUM_ROWS).round(1)  # with ties, as human scores have
        if self.kind == "multilabel":
            return self.rng.random((NUM_ROWS, self.num_labels)) < 0.4
        return [" ".join(self.rng.choice(WORDS, size=2)) + f" {row}" for row in range(NUM_ROWS)]

    def perfect(self) -> Any:
        return [texts[0] for texts in self.labels] if self.kind == "extractive_qa" else self.labels

    def constants(self) -> list[Any]:
        """The same answer to everything: each class, some numbers, no word and one."""
        if self.kind == "extractive_qa":
            return [[text] * NUM_ROWS for text in ("", "red", "the")]
        if self.kind == "multilabel":  # no label, all of them, the first
            every = np.ones((NUM_ROWS, self.num_labels), bool)
            return [~every, every, every & (np.arange(self.num_labels) == 0)]
        dtype = np.int64 if self.kind == "classification" else np.float32
        values = range(self.num_labels) if self.kind == "classification" else (-1.5, 0.0, 1e6)
        return [np.full(NUM_ROWS, value, dtype) for value in values]


@pytest.fixture(params=METRICS)
def metric(request: pytest.FixtureRequest) -> Metric:
    return metrics.get(request.param)


@pytest.fixture(params=NUM_LABELS, ids=lambda count: f"{count} classes")
def rows(request: pytest.FixtureRequest, metric: Metric) -> Rows:
    return Rows(metric.kind, request.param)


def compute(metric: Metric, rows: Rows, predictions: Any, labels: Any = None) -> dict[str, float]:
    return metric.compute(predictions, rows.labels if labels is None else labels, num_labels=rows.num_labels)


def pick(values: Any, order: Sequence[int]) -> Any:
    return values[np.asarray(order)] if isinstance(values, np.ndarray) else [values[index] for index in order]


def as_lists(values: Any) -> list[Any]:
    return values.tolist() if isinstance(values, np.ndarray) else list(values)


def test_it_says_what_it_is(metric: Metric) -> None:
    assert METRICS[metric.name] is metric
    assert metric.mode in ("max", "min"), f"{metric.name}: mode must be 'max' or 'min', but is {metric.mode!r}"
    assert metric.kind in get_args(TaskKind), f"{metric.name}: kind must be one of {get_args(TaskKind)}"
    assert metric.parts
    for name in [*metric.parts, *metric.beside]:
        assert METRICS[name].kind == metric.kind
    assert {METRICS[name].mode for name in metric.parts} == {metric.mode}


def test_it_gives_its_score_and_that_of_each_part_as_plain_finite_numbers(metric: Metric, rows: Rows) -> None:
    scores = compute(metric, rows, rows.random())
    assert list(scores) == list(dict.fromkeys([metric.name, *metric.parts, *metric.beside]))
    assert all(type(score) is float and math.isfinite(score) for score in scores.values()), scores
    assert json.loads(json.dumps(scores)) == scores
    assert scores[metric.name] == pytest.approx(np.mean([scores[name] for name in metric.parts]))
    assert (
        metric.score(rows.perfect(), rows.labels, rows.num_labels) == compute(metric, rows, rows.perfect())[metric.name]
    )


def test_nothing_beats_a_perfect_prediction(metric: Metric, rows: Rows) -> None:
    best = compute(metric, rows, rows.perfect())[metric.name]
    others = [rows.random() for _ in range(20)] + rows.constants()
    for predictions in others:
        score = compute(metric, rows, predictions)[metric.name]
        assert not metric.better(score, than=best), f"{metric.name}: {score} beats {best}; is its mode the right one?"
    assert metric.better(best, than=compute(metric, rows, others[0])[metric.name])
    assert not metric.better(best, than=best)


def test_the_order_of_the_rows_does_not_matter(metric: Metric, rows: Rows) -> None:
    predictions = rows.random()
    order = rows.rng.permutation(NUM_ROWS).tolist()
    moved = compute(metric, rows, pick(predictions, order), pick(rows.labels, order))
    assert moved == pytest.approx(compute(metric, rows, predictions), abs=1e-12)


def test_its_input_stays_as_it_was_and_may_be_a_list(metric: Metric, rows: Rows) -> None:
    predictions, labels = rows.random(), rows.labels
    before = as_lists(predictions), as_lists(labels)
    scores = compute(metric, rows, predictions, labels)
    assert (as_lists(predictions), as_lists(labels)) == before
    assert compute(metric, rows, *before) == scores


def test_degenerate_rows_have_a_score_too(metric: Metric, rows: Rows) -> None:
    """One answer to everything, one right answer to everything, both, and a single row."""
    one_label = pick(rows.labels, [0] * NUM_ROWS)
    cases = [(answer, labels) for answer in [*rows.constants(), rows.random()] for labels in (rows.labels, one_label)]
    cases += [(pick(answer, [0]), pick(labels, [0])) for answer, labels in cases]
    for predictions, labels in cases:
        scores = compute(metric, rows, predictions, labels)
        assert all(type(score) is float and math.isfinite(score) for score in scores.values()), scores


def test_rows_without_a_score_are_refused_by_its_name(metric: Metric, rows: Rows) -> None:
    for predictions, labels in ((rows.perfect()[:0], rows.labels[:0]), (rows.perfect()[1:], rows.labels)):
        with pytest.raises(ValueError, match=f"^{metric.name}: "):
            compute(metric, rows, predictions, labels)


def write_task(folder: Path, kind: str, metric: str) -> str:
    folder.mkdir()
    (folder / "task.json").write_text(json.dumps({"kind": kind, "metric": metric}), encoding="utf-8")
    if kind == "extractive_qa":
        answers = [{"text": "green", "answer_start": 4}]
        asked = [{"id": str(row), "question": "What?", "answers": answers} for row in range(4)]
        content = json.dumps({"data": [{"paragraphs": [{"context": "red green blue", "qas": asked}]}]})
    else:
        labels: list[Any] = [row / 8 + 0.01 for row in range(8)] if kind == "regression" else [0, 1] * 4
        content = "\n".join(["text_a,label", *(f"text number {row},{label}" for row, label in enumerate(labels))])
    for split in ("train", "validation"):
        (folder / f"{split}.{'json' if kind == 'extractive_qa' else 'csv'}").write_text(content, encoding="utf-8")
    return str(folder)


def test_a_task_of_its_kind_can_ask_for_it_and_of_another_kind_cannot(metric: Metric, tmp_path: Path) -> None:
    info = tasks.load(write_task(tmp_path / "fits", metric.kind, metric.name)).info
    assert (info.kind, info.metric) == (metric.kind, metric.name)
    for other in set(get_args(TaskKind)) - {metric.kind}:
        with pytest.raises(FaultsError, match=metric.name):
            tasks.load(write_task(tmp_path / other, other, metric.name))
