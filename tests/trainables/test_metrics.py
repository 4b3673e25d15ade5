"""Metrics against scikit-learn and scipy, and their answers to degenerate input."""

from __future__ import annotations

import subprocess
import sys

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
    "matthews_correlation": lambda p, y: sklearn.metrics.matthews_corrcoef(y, p),
    "pearson": lambda p, y: np.corrcoef(p, y)[0, 1],
    "spearman": lambda p, y: scipy.stats.spearmanr(y, p).statistic,
}
REFERENCES["f1_and_accuracy"] = lambda p, y: (REFERENCES["f1"](p, y) + REFERENCES["accuracy"](p, y)) / 2
REFERENCES["pearson_and_spearman"] = lambda p, y: (REFERENCES["pearson"](p, y) + REFERENCES["spearman"](p, y)) / 2


def random_rows(kind: str, seed: int, num_labels: int = 2) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    if kind == "classification":
        labels = rng.integers(num_labels, size=50)
        return np.where(rng.random(50) < 0.6, labels, rng.integers(num_labels, size=50)), labels
    labels = rng.integers(11, size=50) / 2.0  # with ties, as human scores have
    return (labels + rng.normal(size=50)).astype(np.float32), labels


def test_every_metric_has_a_reference_to_be_held_against() -> None:
    assert set(metrics.METRICS) == set(REFERENCES)


@pytest.mark.parametrize("name", metrics.METRICS)
def test_a_metric_agrees_with_the_library_on_random_input(name: str) -> None:
    for seed in range(10):
        predictions, labels = random_rows(metrics.get(name).kind, seed)
        expected = REFERENCES[name](predictions.astype(np.float64), labels)
        assert metrics.get(name).score(predictions, labels) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("name", metrics.METRICS)
def test_perfect_predictions_score_one_and_beat_the_rest(name: str) -> None:
    metric = metrics.get(name)
    predictions, labels = random_rows(metric.kind, 0)
    assert metric.score(labels, labels) == pytest.approx(1.0)
    assert metric.better(metric.score(labels, labels), than=metric.score(predictions, labels))
    assert not metric.better(0.5, than=0.5)


@pytest.mark.parametrize("name", metrics.METRICS)
def test_constant_predictions_score_a_number(name: str) -> None:
    metric = metrics.get(name)
    _, labels = random_rows(metric.kind, 0)
    scores = metric.compute(np.zeros_like(labels), labels)
    assert all(np.isfinite(score) for score in scores.values())
    assert all(scores[part] == 0.0 for part in scores if part != "accuracy" and part != "f1_and_accuracy")
    assert np.isfinite(metric.score(labels, np.zeros_like(labels)))
    assert np.isfinite(metric.score(labels[:1], labels[:1]))


def test_a_combined_metric_shows_its_parts() -> None:
    predictions, labels = random_rows("classification", 3)
    scores = metrics.get("f1_and_accuracy").compute(predictions, labels)
    assert list(scores) == ["f1_and_accuracy", "f1", "accuracy"]
    assert scores["f1_and_accuracy"] == pytest.approx((scores["f1"] + scores["accuracy"]) / 2)


def test_f1_of_more_than_two_classes_is_the_macro_average() -> None:
    predictions, labels = random_rows("classification", 1, num_labels=4)
    expected = sklearn.metrics.f1_score(labels, predictions, average="macro")
    assert metrics.get("f1").score(predictions, labels) == pytest.approx(expected)


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
        "import sys; import trainables.metrics, trainables.data, trainables.tasks as tasks;"
        "tasks.load('toy/sentiment'); tasks.describe('glue/cola');"
        "print(sorted({'torch', 'transformers', 'datasets', 'sklearn', 'scipy'} & set(sys.modules)))"
    )
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "[]"
