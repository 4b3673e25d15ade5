"""Metrics: how good predictions are, one function each; adding a metric is writing one decorated function here.

Predictions and labels are arrays of shape (N,): class indices for classification, scores for regression. Every metric
answers for degenerate input too (constant predictions, a class that never occurs) with 0.0, never with NaN, so that
a trial that learned nothing still has a score.

scikit-learn and scipy are imported when a metric is computed, so that asking for names and directions stays cheap.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np

from trainables.faults import FaultsError, unknown_name

Kind = Literal["classification", "regression"]
Mode = Literal["max", "min"]
Score = Callable[[np.ndarray, np.ndarray], float]

# What a task is measured by when it does not say.
DEFAULT_METRIC: Mapping[Kind, str] = {"classification": "accuracy", "regression": "pearson_and_spearman"}


@dataclass(frozen=True, kw_only=True)
class Metric:
    """One way to measure a task: its direction, the kind of task it fits, and the parts it is the mean of."""

    name: str
    mode: Mode  # whether the best score is the highest or the lowest
    kind: Kind
    parts: Mapping[str, Score]  # the score is their mean; an ordinary metric has one part, itself

    def compute(self, predictions: np.ndarray, labels: np.ndarray) -> dict[str, float]:
        """The score under the metric's own name, and every part under its own.

        Raises `ValueError` where the shapes differ, there are no rows, or a prediction is not finite.
        """
        predictions, labels = np.asarray(predictions), np.asarray(labels)
        if predictions.shape != labels.shape or predictions.ndim != 1 or not len(labels):
            raise ValueError(
                f"{self.name}: needs predictions and labels of one shape (N,) with N >= 1, "
                f"but got {predictions.shape} and {labels.shape}"
            )
        if not np.isfinite(predictions).all():
            raise ValueError(f"{self.name}: every prediction must be finite, but some are not")
        scores = {name: float(part(predictions, labels)) for name, part in self.parts.items()}
        return {self.name: float(np.mean(list(scores.values()))), **scores}

    def score(self, predictions: np.ndarray, labels: np.ndarray) -> float:
        """The one number that settings are selected by."""
        return self.compute(predictions, labels)[self.name]

    def better(self, score: float, than: float) -> bool:
        """Whether the first score beats the second, in this metric's direction."""
        return score > than if self.mode == "max" else score < than


METRICS: dict[str, Metric] = {}


def get(name: str) -> Metric:
    """The metric of that name. Raises `FaultsError` naming the known ones."""
    if name not in METRICS:
        raise FaultsError("metric", [unknown_name("metric", name, METRICS)])
    return METRICS[name]


def metric(kind: Kind, mode: Mode = "max") -> Callable[[Score], Score]:
    """Make a function of (predictions, labels) a metric of the function's name."""

    def register(score: Score) -> Score:
        name = score.__name__
        METRICS[name] = Metric(name=name, mode=mode, kind=kind, parts={name: score})
        return score

    return register


def mean_of(name: str, *parts: str) -> None:
    """Make the mean of known metrics a metric; GLUE scores some of its tasks so."""
    first = METRICS[parts[0]]
    scores = {part: METRICS[part].parts[part] for part in parts}
    METRICS[name] = Metric(name=name, mode=first.mode, kind=first.kind, parts=scores)


@metric("classification")
def accuracy(predictions: np.ndarray, labels: np.ndarray) -> float:
    """Share of rows whose predicted class is the label."""
    from sklearn.metrics import accuracy_score

    return float(accuracy_score(labels, predictions))


@metric("classification")
def f1(predictions: np.ndarray, labels: np.ndarray) -> float:
    """Harmonic mean of precision and recall of class 1; 0.0 where it is neither predicted nor present.

    Where more than two classes occur it is the macro average: the unweighted mean over the classes that occur in
    the predictions or the labels.
    """
    from sklearn.metrics import f1_score

    average = "binary" if max(labels.max(), predictions.max()) <= 1 else "macro"
    return float(f1_score(labels, predictions, average=average, zero_division=0.0))


@metric("classification")
def matthews_correlation(predictions: np.ndarray, labels: np.ndarray) -> float:
    """Matthews' correlation coefficient, also for many classes; 0.0 where either side is constant."""
    from sklearn.metrics import matthews_corrcoef

    if _constant(predictions) or _constant(labels):
        return 0.0
    return float(matthews_corrcoef(labels, predictions))


@metric("regression")
def pearson(predictions: np.ndarray, labels: np.ndarray) -> float:
    """Linear correlation; 0.0 where either side is constant."""
    from scipy.stats import pearsonr

    if _constant(predictions) or _constant(labels):
        return 0.0
    return float(pearsonr(np.asarray(predictions, np.float64), np.asarray(labels, np.float64)).statistic)


@metric("regression")
def spearman(predictions: np.ndarray, labels: np.ndarray) -> float:
    """Rank correlation, ties sharing their mean rank; 0.0 where either side is constant."""
    from scipy.stats import spearmanr

    if _constant(predictions) or _constant(labels):
        return 0.0
    return float(spearmanr(predictions, labels).statistic)


mean_of("f1_and_accuracy", "f1", "accuracy")
mean_of("pearson_and_spearman", "pearson", "spearman")


def _constant(values: np.ndarray) -> bool:
    return bool((values == values[0]).all())
