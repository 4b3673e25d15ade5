"""Metrics against scikit-learn and scipy. What all have in common is in tests/contracts/test_metric_contract.py."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import scipy.stats
import sklearn.metrics

from trainables import metrics
from trainables.faults import FaultsError

# Each metric restated by the library's own words, on binary (or real-valued) input.
REFERENCES = {
    "accuracy": lambda p, y: sklearn.metrics.accuracy_score(y, p),
    "f1": lambda p, y: sklearn.metrics.f1_score(y, p),
    "macro_f1": lambda p, y: (sklearn.metrics.f1_score(y, p) + sklearn.metrics.f1_score(1 - y, 1 - p)) / 2,
    "matthews_correlation": lambda p, y: sklearn.metrics.matthews_corrcoef(y, p),
    "pearson": lambda p, y: np.corrcoef(p, y)[0, 1],
    "spearman": lambda p, y: scipy.stats.spearmanr(y, p).statistic,
}
REFERENCES["squad_f1"] = lambda p, y: mean_of_best(word_f1, p, y)
REFERENCES["squad_em"] = lambda p, y: mean_of_best(lambda one, other: one == other, p, y)
REFERENCES["f1_and_accuracy"] = lambda p, y: (REFERENCES["f1"](p, y) + REFERENCES["accuracy"](p, y)) / 2
REFERENCES["pearson_and_spearman"] = lambda p, y: (REFERENCES["pearson"](p, y) + REFERENCES["spearman"](p, y)) / 2


def mean_of_best(agreement: Callable[[list[str], list[str]], float], predictions: Any, labels: Any) -> float:
    """On texts of words that need no normalising."""
    best = [
        max(agreement(text.split(), right.split()) for right in texts)
        for text, texts in zip(predictions, labels, strict=True)
    ]
    return float(np.mean(best))


def word_f1(predicted: list[str], right: list[str]) -> float:
    """Harmonic mean of precision and recall, each predicted word using up one of the right answer's."""
    left, hits = list(right), 0
    for word in predicted:
        if word in left:
            left.remove(word)
            hits += 1
    precision, recall = hits / len(predicted), hits / len(right)
    return 2 * precision * recall / (precision + recall) if hits else 0.0


def random_rows(kind: str, seed: int, num_labels: int = 2) -> tuple[Any, Any]:
    rng = np.random.default_rng(seed)
    if kind == "extractive_qa":
        texts = [" ".join(rng.choice(list("bcdef"), size=rng.integers(1, 5))) for _ in range(150)]
        return texts[:50], [tuple(texts[50 + row : 52 + row]) for row in range(50)]
    if kind == "classification":
        labels = rng.integers(num_labels, size=50)
        return np.where(rng.random(50) < 0.6, labels, rng.integers(num_labels, size=50)), labels
    labels = rng.integers(11, size=50) / 2.0  # with ties, as human scores have
    return (labels + rng.normal(size=50)).astype(np.float32), labels


@pytest.mark.parametrize("name", REFERENCES)
def test_a_metric_agrees_with_the_library_on_random_input(name: str) -> None:
    for seed in range(10):
        predictions, labels = random_rows(metrics.get(name).kind, seed)
        numbers = isinstance(predictions, np.ndarray)
        expected = REFERENCES[name](predictions.astype(np.float64) if numbers else predictions, labels)
        assert metrics.get(name).score(predictions, labels, 2) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("name", REFERENCES)
def test_perfect_predictions_score_one(name: str) -> None:
    metric = metrics.get(name)
    _, labels = random_rows(metric.kind, 0)
    perfect = [texts[-1] for texts in labels] if metric.kind == "extractive_qa" else labels
    assert metric.score(perfect, labels, 2) == pytest.approx(1.0)


@pytest.mark.parametrize("name", ["f1", "matthews_correlation", "pearson", "spearman", "pearson_and_spearman"])
def test_who_always_says_the_same_scores_nothing(name: str) -> None:
    metric = metrics.get(name)
    _, labels = random_rows(metric.kind, 0)
    assert metric.score(np.zeros_like(labels), labels, 2) == 0.0


def test_a_combined_metric_shows_its_parts() -> None:
    predictions, labels = random_rows("classification", 3)
    scores = metrics.get("f1_and_accuracy").compute(predictions, labels, num_labels=2)
    assert list(scores) == ["f1_and_accuracy", "f1", "accuracy"]
    assert scores["f1_and_accuracy"] == pytest.approx((scores["f1"] + scores["accuracy"]) / 2)


# Each with F1 and exact match counted by hand.
ANSWERS = [
    ("Denver Broncos", ["Denver Broncos"], 1.0, 1.0),
    ("the denver  BRONCOS!", ["Denver Broncos"], 1.0, 1.0),  # case, articles, punctuation and spaces do not count
    ("Denver", ["Denver Broncos"], 2 / 3, 0.0),  # precision 1, recall 1/2
    ("in Denver Broncos stadium", ["Denver Broncos"], 2 / 3, 0.0),  # precision 1/2, recall 1
    ("Broncos Denver", ["Denver Broncos"], 1.0, 0.0),  # F1 knows no order
    ("Carolina", ["Denver Broncos"], 0.0, 0.0),
    ("Broncos", ["Denver Broncos", "Broncos", "team"], 1.0, 1.0),  # the best of several right answers
    ("very very long", ["very long way"], 2 / 3, 0.0),  # a repeated word is shared as often as both have it
    ("", ["Denver Broncos"], 0.0, 0.0),
    ("the", ["an"], 0.0, 1.0),  # nothing is left of either: equal, but no word is shared
    ("U.S.", ["US"], 1.0, 1.0),
    ("thean", ["thean"], 1.0, 1.0),  # an article is a whole word
    ("the-end", ["end"], 0.0, 0.0),  # punctuation goes first, and what it joined is one word
    ("Beyonc\u00e9\u2019s", ["beyonc\u00e9s"], 0.0, 0.0),  # other than ASCII, punctuation stays
    ("a\u2014b", ["\u2014b"], 1.0, 1.0),  # and bounds a word: the article before it goes
]


@pytest.mark.parametrize(("answer", "right", "f1", "exact"), ANSWERS)
def test_squad_scores_are_what_is_counted_by_hand(answer: str, right: list[str], f1: float, exact: float) -> None:
    scores = metrics.get("squad_f1").compute([answer], [right])
    assert scores == {"squad_f1": pytest.approx(f1), "squad_em": exact}


def test_squad_scores_are_means_over_questions_and_report_each_other() -> None:
    answers, right, f1, exact = zip(*ANSWERS, strict=True)
    expected = {"squad_f1": pytest.approx(np.mean(f1)), "squad_em": pytest.approx(np.mean(exact))}
    assert metrics.get("squad_f1").compute(answers, right) == expected
    assert metrics.get("squad_em").compute(answers, right) == expected
    assert metrics.get("squad_em").score(answers, right) == expected["squad_em"]


def test_a_question_without_a_right_answer_has_no_score() -> None:
    with pytest.raises(ValueError, match="squad_f1: every question must have a right answer"):
        metrics.get("squad_f1").compute(["a", "b"], [("a",), ()])
    with pytest.raises(ValueError, match="squad_f1: needs predictions and labels of one shape"):
        metrics.get("squad_f1").compute(["a", "b"], [("a",)])


@pytest.mark.parametrize("name", ["f1", "macro_f1"])
def test_f1_of_more_than_two_classes_is_the_macro_average(name: str) -> None:
    predictions, labels = random_rows("classification", 1, num_labels=4)
    expected = sklearn.metrics.f1_score(labels, predictions, average="macro")
    assert metrics.get(name).score(predictions, labels, 4) == pytest.approx(expected)


def test_the_classes_of_the_task_decide_the_average_of_f1_and_not_what_was_predicted() -> None:
    predictions, labels = np.array([0, 0, 1, 1, 1]), np.array([0, 1, 1, 1, 1])
    of_one = 6 / 7  # precision 1, recall 3/4
    of_zero = 2 / 3  # precision 1/2, recall 1
    for name, few, many in (
        ("f1", of_one, (of_zero + of_one) / 2),
        ("macro_f1", (of_zero + of_one) / 2, (of_zero + of_one) / 2),
    ):
        assert metrics.get(name).score(predictions, labels, num_labels=2) == pytest.approx(few)
        assert metrics.get(name).score(predictions, labels, num_labels=3) == pytest.approx(many)


def test_a_class_that_is_predicted_and_not_present_counts_in_macro_f1() -> None:
    score = metrics.get("macro_f1").score(np.array([0, 1, 2]), np.array([0, 1, 1]), num_labels=4)
    assert score == pytest.approx((1 + 2 / 3 + 0) / 3)


def test_a_metric_that_must_know_the_classes_says_so_where_it_is_not_told() -> None:
    with pytest.raises(ValueError, match="f1_and_accuracy: needs the task's number of classes"):
        metrics.get("f1_and_accuracy").compute(np.array([0, 1]), np.array([0, 1]))


def test_matthews_correlation_takes_many_classes() -> None:
    predictions, labels = random_rows("classification", 2, num_labels=5)
    expected = sklearn.metrics.matthews_corrcoef(labels, predictions)
    assert metrics.get("matthews_correlation").score(predictions, labels) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("predictions", "labels"),
    [(np.zeros(0), np.zeros(0)), (np.zeros(3), np.zeros(4)), (np.array([1.0, np.nan]), np.array([1.0, 2.0]))],
    ids=["no rows", "unequal shapes", "not finite"],
)
def test_input_that_has_no_score_is_refused(predictions: np.ndarray, labels: np.ndarray) -> None:
    with pytest.raises(ValueError, match="pearson"):
        metrics.get("pearson").compute(predictions, labels)


def test_an_unknown_metric_is_refused_with_the_known_ones() -> None:
    with pytest.raises(FaultsError, match="did you mean 'accuracy'") as refusal:
        metrics.get("acuracy")
    assert all(name in str(refusal.value) for name in metrics.METRICS)


def test_a_decorated_function_is_a_metric(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics, "METRICS", dict(metrics.METRICS))

    @metrics.metric("regression", mode="min")
    def mean_absolute_error(predictions: np.ndarray, labels: np.ndarray) -> float:
        return float(np.abs(predictions - labels).mean())

    found = metrics.get("mean_absolute_error")
    assert (found.kind, found.mode) == ("regression", "min")
    assert found.compute(np.array([1.0, 2.0]), np.array([2.0, 2.0])) == {"mean_absolute_error": 0.5}
    assert found.better(0.1, than=0.5)


def test_asking_for_names_and_tasks_loads_no_heavy_library() -> None:
    code = (
        "import sys; import trainables.metrics, trainables.data.tokenized, trainables.tasks as tasks;"
        "tasks.load('toy/sentiment'); tasks.describe('glue/cola');"
        "print(sorted({'torch', 'transformers', 'datasets', 'sklearn', 'scipy'} & set(sys.modules)))"
    )
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "[]"
