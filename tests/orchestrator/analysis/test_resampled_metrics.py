"""Metrics of many resamples at once, against one resample after the other."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from scipy import stats

from orchestrator.analysis import resampled_metrics
from orchestrator.analysis.resampled_metrics import has_counts, paired_p_value, row_outcomes, scores_of_counts
from orchestrator.analysis.statistics import intervals, significance
from trainables import metrics

_WORDS = ("a cat", "the dog", "a dog", "nothing")
# Other tests of this process may have added metrics of theirs.
OURS = sorted(
    name
    for name, known in metrics.METRICS.items()
    if all(part.__module__ == metrics.__name__ for part in known.parts.values())
)
CLASSIFIED = [name for name in OURS if metrics.get(name).kind == "classification"]


def rows_of(name: str, rng: np.random.Generator, *, classes: int = 3, count: int = 40) -> tuple[Any, Any]:
    """Labels and predictions of the kind that a metric takes, which agree on many rows."""
    kind = metrics.get(name).kind
    if kind == "extractive_qa":
        labels = np.empty(count, object)
        for row in range(count):
            labels[row] = [_WORDS[rng.integers(4)], _WORDS[rng.integers(4)]]
        return labels, np.array([_WORDS[each] for each in rng.integers(4, size=count)], object)
    if kind == "regression":
        labels = rng.integers(6, size=count).astype(float)  # with ties
        return labels, np.round(labels + rng.normal(0, 2, count), 1)
    if kind == "multilabel":
        labels = rng.random((count, classes)) < 0.4
        return labels, labels ^ (rng.random((count, classes)) < 0.2)
    labels = rng.integers(classes, size=count)
    return labels, np.where(rng.random(count) < 0.7, labels, rng.integers(classes, size=count))


@pytest.fixture
def slow_metric() -> Iterator[str]:
    """A metric that nothing here knows."""

    @metrics.metric("regression", "min")
    def mean_absolute_error(predictions: np.ndarray, labels: np.ndarray) -> float:
        return float(np.abs(predictions - labels).mean())

    yield "mean_absolute_error"
    del metrics.METRICS["mean_absolute_error"]


@pytest.mark.parametrize("classes", [2, 3, 7])
@pytest.mark.parametrize("name", OURS)
@pytest.mark.thinned
def test_the_score_of_a_resample_is_that_of_its_rows(name: str, classes: int) -> None:
    rng = np.random.default_rng(classes)
    labels, predictions = rows_of(name, rng, classes=classes)
    counts = rng.multinomial(40, np.full(40, 1 / 40), size=10)
    counts[0] = 0
    counts[0, 3] = 40  # one row alone, so that everything is constant
    models = np.stack([predictions, predictions[::-1]])
    found = scores_of_counts(name, models, labels, counts, classes)
    drawn = [np.repeat(np.arange(40), each) for each in counts]
    for model, scores in zip(models, found, strict=True):
        expected = [metrics.get(name).score(model[each], labels[each], classes) for each in drawn]
        assert scores == pytest.approx(expected, rel=1e-6, abs=1e-9)
    assert has_counts(name) == (metrics.get(name).kind != "extractive_qa")


@pytest.mark.parametrize("name", [*CLASSIFIED, "micro_f1", "multilabel_macro_f1"])
def test_rows_of_classes_and_of_labels_are_left_out_one_by_one(name: str) -> None:
    labels, predictions = rows_of(name, np.random.default_rng(1))
    score = metrics.get(name).score
    whole = score(predictions, labels, 3)
    others = [score(np.delete(predictions, row, 0), np.delete(labels, row, 0), 3) for row in range(40)]
    assert row_outcomes(name, predictions, labels, 3) == pytest.approx(40 * whole - 39 * np.array(others))


@pytest.mark.parametrize("name", ["accuracy", "squad_f1", "squad_em", "subset_accuracy"])
def test_of_a_mean_over_rows_the_mean_of_the_outcomes_is_the_score(name: str) -> None:
    labels, predictions = rows_of(name, np.random.default_rng(2))
    assert row_outcomes(name, predictions, labels, 3).mean() == pytest.approx(
        metrics.get(name).score(predictions, labels, 3)
    )


@pytest.mark.parametrize(("name", "count"), [("pearson", 60), ("spearman", 1200), ("pearson_and_spearman", 1203)])
@pytest.mark.thinned(1)
def test_many_rows_of_numbers_are_left_out_in_groups(name: str, count: int) -> None:
    labels, predictions = rows_of(name, np.random.default_rng(3), count=count)
    found = row_outcomes(name, predictions, labels, None)
    assert len(found) == min(count, 500)
    assert found.mean() == pytest.approx(metrics.get(name).score(predictions, labels), abs=0.01)
    rng = np.random.default_rng(4)
    drawn = [rng.integers(count, size=count) for _ in range(400)]
    spread = np.std([metrics.get(name).score(predictions[rows], labels[rows]) for rows in drawn])
    assert found.std(ddof=1) / np.sqrt(len(found)) == pytest.approx(spread, rel=0.15)


def test_a_metric_that_nothing_here_knows_is_computed_all_the_same(slow_metric: str) -> None:
    labels, predictions = rows_of(slow_metric, np.random.default_rng(5), count=200)
    found = row_outcomes(slow_metric, predictions, labels, None)
    errors = np.abs(predictions - labels)
    assert (len(found), found.mean()) == (50, pytest.approx(errors.mean()))
    assert found == pytest.approx(errors.reshape(4, 50).mean(axis=0))


@pytest.mark.parametrize("name", [*CLASSIFIED, "pearson", "pearson_and_spearman"])
@pytest.mark.thinned(2)
def test_the_p_value_is_that_of_the_paired_bootstrap(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(6)
    labels, _ = rows_of(name, rng)
    models = np.stack([rows_of(name, rng)[1] for _ in range(3)])
    score = metrics.get(name).score

    def difference(first: np.ndarray, second: np.ndarray) -> float:
        right, ours, theirs = first[:, 0], first[:, 1:].T, second.T
        return float(np.mean([score(each, right, 3) for each in ours]) - score(theirs[0], right, 3))

    expected = significance.paired_bootstrap(
        np.column_stack([labels, models[0], models[1]]),
        np.column_stack([models[2]]),
        rng=np.random.default_rng(7),
        statistic=difference,
        num_resamples=80,
    )
    monkeypatch.setattr(resampled_metrics, "_AT_ONCE", 2_000)  # several steps draw the same rows as one
    found = paired_p_value(
        name,
        labels,
        (np.full(2, 0.5), models[:2]),
        (np.ones(1), models[2:]),
        3,
        rng=np.random.default_rng(7),
        num_resamples=80,
    )
    assert found == pytest.approx(expected.p_value)
    assert found < 1


@pytest.mark.parametrize("num_seeds", [3, 5])
@pytest.mark.thorough
def test_the_interval_of_f1_covers_other_seeds_and_rows(num_seeds: int) -> None:
    """Two methods that are right on 90 and on 85 % of rows, whatever their class, and 35 % have class 1."""
    rng = np.random.default_rng(2026)
    accuracies = (0.9, 0.85)
    levels = [0.7 * accuracy / (0.7 * accuracy + 1 - accuracy) for accuracy in accuracies]
    thresholds = np.sqrt(2.01) * stats.norm.ppf(accuracies)
    covered = 0
    for _ in range(500):
        labels = (rng.random(200) < 0.35).astype(int)
        hard = rng.normal(size=200)
        sides = []
        for threshold in thresholds:
            seeds, rest = rng.normal(0, 0.1, (num_seeds, 1)), rng.normal(size=(num_seeds, 200))
            right = threshold + seeds + hard + rest > 0
            predicted = np.where(right, labels, 1 - labels)
            sides.append(np.stack([row_outcomes("f1", each, labels, 2) for each in predicted]))
        estimate = intervals.difference_over_rows(*sides)
        assert estimate is not None
        low, high = estimate.interval()
        covered += low <= levels[0] - levels[1] <= high
    assert 0.93 <= covered / 500 <= 0.97
