"""Metrics: how good predictions are, one function each; adding a metric is writing one decorated function here.

The contract test of all metrics runs over it the moment it exists.

Predictions and labels are arrays of shape (N,): class indices for classification, scores for regression; for
extractive question answering a prediction is a text and a label the texts that count as right. Where a row may have
several labels they are (N, C), true where a row has a label, and a row may have none. Every metric answers
for degenerate input too (constant predictions, a class that never occurs) with 0.0, never with NaN, so that a trial
that learned nothing still has a score. A function that must know how many classes its task has takes a third argument,
`num_labels`: what was predicted does not say.

scikit-learn and scipy are imported when a metric is computed, so that asking for names and directions stays cheap.
"""

from __future__ import annotations

import dataclasses
import inspect
import re
import string
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from trainables.faults import FaultsError, unknown_name

TaskKind = Literal["classification", "regression", "extractive_qa", "multilabel"]
Mode = Literal["max", "min"]
Score = Callable[..., float]  # of predictions, labels and, where it takes one, num_labels

# What a task is measured by when it does not say.
DEFAULT_METRIC: Mapping[TaskKind, str] = {
    "classification": "accuracy",
    "regression": "pearson_and_spearman",
    "extractive_qa": "squad_f1",
    # What most papers on several labels a text report first: every decision counts the same, so that it is steady where
    # labels have few rows; the mean over labels is reported beside it.
    "multilabel": "micro_f1",
}


@dataclass(frozen=True, kw_only=True)
class Metric:
    """One way to measure a task: its direction, the kind of task it fits, and the parts it is the mean of."""

    name: str
    mode: Mode  # whether the best score is the highest or the lowest
    kind: TaskKind
    parts: Mapping[str, Score]  # the score is their mean; an ordinary metric has one part, itself
    beside: Mapping[str, Score] = dataclasses.field(default_factory=dict)  # reported with it, no part of the score

    def compute(
        self, predictions: Sequence | np.ndarray, labels: Sequence | np.ndarray, num_labels: int | None = None
    ) -> dict[str, float]:
        """The score under the metric's own name, and every part and what is reported beside it under theirs.

        `num_labels` is the number of classes of the task, which some metrics of classification must know. Raises
        `ValueError` where one must and it is not given, the shapes differ, there are no rows, a prediction is not
        finite, or a question has no right answer.
        """
        predictions, labels = (_as_rows(rows, self.kind) for rows in (predictions, labels))
        wanted, axes = ("(N, C)", 2) if self.kind == "multilabel" else ("(N,)", 1)
        if predictions.shape != labels.shape or predictions.ndim != axes or not len(labels):
            raise ValueError(
                f"{self.name}: needs predictions and labels of one shape {wanted} with N >= 1, "
                f"but got {predictions.shape} and {labels.shape}"
            )
        if self.kind == "extractive_qa":
            if not all(len(texts) for texts in labels):
                raise ValueError(f"{self.name}: every question must have a right answer, but some have none")
        elif not np.isfinite(predictions).all():
            raise ValueError(f"{self.name}: every prediction must be finite, but some are not")
        found = {}
        for name, function in {**self.parts, **self.beside}.items():
            given = (num_labels,) if _needs_num_labels(function) else ()
            if None in given:
                raise ValueError(f"{self.name}: needs the task's number of classes, num_labels, but got none")
            found[name] = float(function(predictions, labels, *given))
        return {self.name: float(np.mean([found[name] for name in self.parts])), **found}

    def score(
        self, predictions: Sequence | np.ndarray, labels: Sequence | np.ndarray, num_labels: int | None = None
    ) -> float:
        """The one number that settings are selected by. Arguments and errors as in `compute`."""
        return self.compute(predictions, labels, num_labels)[self.name]

    def better(self, score: float, than: float) -> bool:
        """Whether the first score beats the second, in this metric's direction."""
        return score > than if self.mode == "max" else score < than


METRICS: dict[str, Metric] = {}


def get(name: str) -> Metric:
    """The metric of that name. Raises `FaultsError` naming the known ones."""
    if name not in METRICS:
        raise FaultsError("metric", [unknown_name("metric", name, METRICS)])
    return METRICS[name]


def metric(kind: TaskKind, mode: Mode = "max") -> Callable[[Score], Score]:
    """Make a function of (predictions, labels) or (predictions, labels, num_labels) a metric of the function's name."""

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


def report_together(*names: str) -> None:
    """Make known metrics of one kind report each other beside their own score."""
    for name in names:
        others = {other: METRICS[other].parts[other] for other in names if other != name}
        METRICS[name] = dataclasses.replace(METRICS[name], beside=others)


@metric("classification")
def accuracy(predictions: np.ndarray, labels: np.ndarray) -> float:
    """Share of rows whose predicted class is the label."""
    from sklearn.metrics import accuracy_score

    return float(accuracy_score(labels, predictions))


@metric("classification")
def f1(predictions: np.ndarray, labels: np.ndarray, num_labels: int) -> float:
    """Of a task with two classes the F1 of class 1, 0.0 where it is neither predicted nor present; else `macro_f1`.

    F1 is the harmonic mean of precision and recall.
    """
    from sklearn.metrics import f1_score

    if num_labels > 2:
        return macro_f1(predictions, labels)
    return float(f1_score(labels, predictions, average="binary", zero_division=0.0))


@metric("classification")
def macro_f1(predictions: np.ndarray, labels: np.ndarray) -> float:
    """Unweighted mean of the F1 of each class, rare or not, over the classes that are predicted or present."""
    from sklearn.metrics import f1_score

    return float(f1_score(labels, predictions, average="macro", zero_division=0.0))


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


@metric("extractive_qa")
def squad_f1(predictions: np.ndarray, labels: np.ndarray) -> float:
    """Mean over questions of the F1 of the words of the answer, against the right answer where it is highest.

    Words are those of `_words`, counted as often as they stand: F1 = 2 * shared / (predicted + right), and 0 where
    none is shared, as evaluation of SQuAD v1.1 has it.
    """

    def overlap(predicted: list[str], right: list[str]) -> float:
        shared = (Counter(predicted) & Counter(right)).total()
        return 2 * shared / (len(predicted) + len(right)) if shared else 0.0

    return _mean_of_best(overlap, predictions, labels)


@metric("extractive_qa")
def squad_em(predictions: np.ndarray, labels: np.ndarray) -> float:
    """Share of questions whose answer has the same words, in their order, as one of the right answers."""
    return _mean_of_best(lambda predicted, right: float(predicted == right), predictions, labels)


@metric("multilabel")
def micro_f1(predictions: np.ndarray, labels: np.ndarray) -> float:
    """F1 of all decisions together, a row and label each: 2 right / (predicted + present); 0.0 where there is neither.

    scikit-learn calls it `f1_score(average="micro")`.
    """
    return _f1_of_counts((predictions & labels).sum(), predictions.sum() + labels.sum())


@metric("multilabel")
def multilabel_macro_f1(predictions: np.ndarray, labels: np.ndarray) -> float:
    """Unweighted mean of the F1 of each label of the task, rare or not; a label neither predicted nor present has 0.0.

    scikit-learn calls it `f1_score(average="macro")`, with `zero_division=0`.
    """
    right, both = (predictions & labels).sum(axis=0), predictions.sum(axis=0) + labels.sum(axis=0)
    return float(np.mean([_f1_of_counts(*counts) for counts in zip(right, both, strict=True)]))


@metric("multilabel")
def subset_accuracy(predictions: np.ndarray, labels: np.ndarray) -> float:
    """Share of rows whose predicted labels are all there are and no other, a row without any label included."""
    return float((predictions == labels).all(axis=1).mean())


mean_of("f1_and_accuracy", "f1", "accuracy")
mean_of("pearson_and_spearman", "pearson", "spearman")
report_together("squad_f1", "squad_em")
report_together("micro_f1", "multilabel_macro_f1", "subset_accuracy")


def _f1_of_counts(right: float, predicted_and_present: float) -> float:
    """The harmonic mean of precision and recall, 0.0 where nothing is predicted or present."""
    return float(2 * right / predicted_and_present) if predicted_and_present else 0.0


def _needs_num_labels(function: Score) -> bool:
    return "num_labels" in inspect.signature(function).parameters


def _constant(values: np.ndarray) -> bool:
    return bool((values == values[0]).all())


_ARTICLES = re.compile(r"\b(?:a|an|the)\b")
_NO_PUNCTUATION = str.maketrans("", "", string.punctuation)


def _words(text: str) -> list[str]:
    """What SQuAD compares: lower-case words, without ASCII punctuation first, then without articles."""
    return _ARTICLES.sub(" ", text.lower().translate(_NO_PUNCTUATION)).split()


def _mean_of_best(agreement: Callable[[list[str], list[str]], float], predictions: Any, labels: Any) -> float:
    """Mean over questions of the agreement of a predicted text with the right answer that it agrees with most."""
    best = [
        max(agreement(words, _words(right)) for right in texts)
        for words, texts in zip(map(_words, predictions), labels, strict=True)
    ]
    return sum(best) / len(best)


def _as_rows(values: Sequence | np.ndarray, kind: TaskKind) -> np.ndarray:
    """An array (N,), or (N, C) of truth values; of texts or collections of texts, NumPy would make something else."""
    if kind == "multilabel":
        return np.asarray(values, bool)
    if kind != "extractive_qa":
        return np.asarray(values)
    rows = np.empty(len(values), object)
    for index, value in enumerate(values):
        rows[index] = value
    return rows
