"""The score of many resamples of the same rows at once, and what each row contributes to a score.

A resample is how often each row stands in it. The metrics of `trainables.metrics` that many tasks use are computed for
thousands of resamples together, from counts; any other metric is computed for one after the other, and is right all the
same. A test holds both to the same numbers.

Where a row may have several labels, labels and predictions have one more axis than is said, of truth values by label. A
row stays what is drawn or left out, with all its labels: those of one text are not independent of each other.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from trainables import metrics

RESAMPLES = 2000
# The mean of something that each row has for itself, so a row can be scored alone.
MEANS_OVER_ROWS = ("accuracy", "squad_f1", "squad_em", "subset_accuracy")
# Those of which a row has 1 or 0.
SHARES_OF_ROWS = ("accuracy", "squad_em", "subset_accuracy")
# A row of numbers is left out alone up to so many rows, else with others; so of a metric that knows no counts.
_MOST_GROUPS, _MOST_GROUPS_OF_OTHERS = 500, 50
_AT_ONCE = 1_000_000  # numbers in memory


def row_outcomes(metric: str, predictions: np.ndarray, labels: np.ndarray, num_labels: int | None) -> np.ndarray:
    """What each of `(num_rows,)` rows, or each of fewer groups of rows, contributes to the score, which is their mean.

    Of a mean over rows it is what the row has: 1 where it was right. Of any other metric it is the jackknife's
    pseudo-value: the score of all n rows n times, less n - 1 times the score of the others. Rows of classes are left
    out one by one. Rows of numbers, and of several labels, are left out in up to 500 groups of almost equal size where
    there are many, every 500th row together.

    Source: Efron and Tibshirani (1993), chapter 11.
    """
    known = metrics.get(metric)
    if metric == "accuracy":
        return np.asarray(predictions == labels, dtype=np.float64)
    if metric == "subset_accuracy":
        return np.asarray((predictions == labels).all(axis=1), dtype=np.float64)
    if metric in MEANS_OVER_ROWS:
        return np.array([known.score([mine], [right]) for mine, right in zip(predictions, labels, strict=True)])
    n = len(labels)
    if known.kind == "classification":  # rows with the same label and prediction contribute the same
        (kept_labels, kept), place, counts = distinct_rows(np.stack([labels, predictions]))
        sizes = np.ones(len(counts))
    else:
        most = _MOST_GROUPS if has_counts(metric) else _MOST_GROUPS_OF_OTHERS
        place = np.arange(n) % min(n, most)
        kept_labels, kept, counts = labels, predictions, np.ones(n, dtype=np.int64)
        sizes = np.bincount(place).astype(np.float64)
    whole = scores_of_counts(metric, kept[None], kept_labels, counts[None], num_labels)[0, 0]
    group = np.arange(len(counts)) if known.kind == "classification" else place
    step = max(1, _AT_ONCE // len(counts))
    others = np.concatenate(
        [
            scores_of_counts(metric, kept[None], kept_labels, counts - (group == each[:, None]), num_labels)[0]
            for each in np.split(np.arange(len(sizes)), range(step, len(sizes), step))
        ]
    )
    values = (n * whole - (n - sizes) * others) / sizes
    return np.asarray(values[place] if known.kind == "classification" else values)


def distinct_rows(columns: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The different columns of `(k, num_rows)` as `(k, num_different)`, which of them each row has, and how often."""
    different, place, counts = np.unique(columns, axis=1, return_inverse=True, return_counts=True)
    return different, place.reshape(-1), counts


def paired_p_value(
    metric: str,
    labels: np.ndarray,
    first: tuple[np.ndarray, np.ndarray],
    second: tuple[np.ndarray, np.ndarray],
    num_labels: int | None,
    *,
    rng: np.random.Generator,
    num_resamples: int = RESAMPLES,
) -> float:
    """The two-sided p-value of the paired bootstrap over rows of the difference of two sides' scores.

    A side is `(num_models,)` weights and `(num_models, num_rows)` predictions; its score is the weighted sum of the
    models' scores. The same rows are drawn for all. The definition and the order of the draws are those of
    `significance.paired_bootstrap`, so that 2 / (1 + num_resamples) is the smallest that it can give.
    """
    n = len(labels)
    weights = np.concatenate([first[0], -second[0]])
    predictions = np.concatenate([first[1], second[1]])
    place: np.ndarray = np.arange(n)
    if metrics.get(metric).kind == "classification":
        (labels, *rest), place, _ = distinct_rows(np.concatenate([labels[None], predictions]))
        predictions = np.stack(rest)
    size = len(labels)
    found = np.empty(num_resamples)
    step = max(1, _AT_ONCE // max(n, size * len(predictions)))
    for start in range(0, num_resamples, step):
        drawn = place[rng.integers(n, size=(min(step, num_resamples - start), n))]
        drawn += size * np.arange(len(drawn))[:, None]
        counts = np.bincount(drawn.reshape(-1), minlength=size * len(drawn)).reshape(len(drawn), size)
        found[start : start + len(drawn)] = weights @ scores_of_counts(metric, predictions, labels, counts, num_labels)
    # Sums of the same numbers in another order differ in their last digits and are 0 all the same.
    beyond = min(int((found <= 1e-12).sum()), int((found >= -1e-12).sum()))
    return min(1.0, 2 * (1 + beyond) / (1 + num_resamples))


def scores_of_counts(
    metric: str, predictions: np.ndarray, labels: np.ndarray, counts: np.ndarray, num_labels: int | None
) -> np.ndarray:
    """The score of `(num_models, num_rows)` predictions on each of `(num_resamples, num_rows)` counts of the rows.

    Gives `(num_models, num_resamples)`; labels are `(num_rows,)`.
    """
    known = metrics.get(metric)
    if not has_counts(metric):
        rows = np.arange(len(labels))
        drawn = [np.repeat(rows, each) for each in counts]
        return np.array([[known.score(model[d], labels[d], num_labels) for d in drawn] for model in predictions])
    if known.kind == "multilabel":
        scores = [[_OF_LABEL_SETS[part](model, labels, counts) for part in known.parts] for model in predictions]
        return np.asarray(np.mean(scores, axis=1))
    if known.kind == "regression":
        numbers = [np.asarray(values, dtype=np.float64) for values in (predictions, labels)]
        return np.asarray(np.mean([_OF_NUMBERS[part](*numbers, counts) for part in known.parts], axis=0))
    is_macro = num_labels is not None and num_labels > 2
    parts = ["macro_f1" if part == "f1" and is_macro else part for part in known.parts]
    tallies = [_Tallies(model, labels, counts) for model in predictions]
    return np.array([np.mean([_OF_CLASSES[part](each) for part in parts], axis=0) for each in tallies])


def has_counts(metric: str) -> bool:
    """Whether a metric can be computed for many resamples at once."""
    known = metrics.get(metric)
    counted = {"classification": {*_OF_CLASSES}, "multilabel": {*_OF_LABEL_SETS}}
    return {*known.parts} <= counted.get(known.kind, {*_OF_NUMBERS})


class _Tallies:
    """Of each resample and class, how many rows have it as label, as prediction and as both: `(num_resamples, C)`."""

    def __init__(self, predictions: np.ndarray, labels: np.ndarray, counts: np.ndarray) -> None:
        classes = np.arange(max(2, 1 + int(max(predictions.max(), labels.max()))))
        has_label, has_prediction = (values[:, None] == classes for values in (labels, predictions))
        numbers = counts.astype(np.float64)
        self.total = numbers.sum(axis=1)
        self.labelled = numbers @ has_label
        self.predicted = numbers @ has_prediction
        self.right = numbers @ (has_label & has_prediction)


def _accuracy(tallies: _Tallies) -> np.ndarray:
    return np.asarray(tallies.right.sum(axis=1) / tallies.total)


def _f1_by_class(tallies: _Tallies) -> np.ndarray:
    both = tallies.labelled + tallies.predicted
    return _f1_of(tallies.right, both)


def _f1(tallies: _Tallies) -> np.ndarray:
    return np.asarray(_f1_by_class(tallies)[:, 1])


def _macro_f1(tallies: _Tallies) -> np.ndarray:
    is_there = tallies.labelled + tallies.predicted > 0
    return np.asarray(_f1_by_class(tallies).sum(axis=1) / is_there.sum(axis=1))


def _matthews(tallies: _Tallies) -> np.ndarray:
    """Gorodkin (2004)."""
    square = tallies.total**2
    above = tallies.right.sum(axis=1) * tallies.total - (tallies.labelled * tallies.predicted).sum(axis=1)
    below = (square - (tallies.predicted**2).sum(axis=1)) * (square - (tallies.labelled**2).sum(axis=1))
    return np.divide(above, np.sqrt(below), out=np.zeros_like(above), where=below > 0)


def _micro_f1(model: np.ndarray, labels: np.ndarray, counts: np.ndarray) -> np.ndarray:
    right, both = (model & labels).sum(axis=1), model.sum(axis=1) + labels.sum(axis=1)
    return _f1_of(counts @ right, counts @ both)


def _multilabel_macro_f1(model: np.ndarray, labels: np.ndarray, counts: np.ndarray) -> np.ndarray:
    numbers = counts.astype(np.float64)
    both = numbers @ model.astype(np.float64) + numbers @ labels.astype(np.float64)
    return np.asarray(_f1_of(numbers @ (model & labels).astype(np.float64), both).mean(axis=1))


def _subset_accuracy(model: np.ndarray, labels: np.ndarray, counts: np.ndarray) -> np.ndarray:
    return np.asarray(counts @ (model == labels).all(axis=1) / counts.sum(axis=1))


def _f1_of(right: np.ndarray, both: np.ndarray) -> np.ndarray:
    """F1 where so many are right and predicted and present together; 0 where there is neither."""
    return np.divide(2.0 * right, both, out=np.zeros(np.shape(both)), where=both > 0)


def _pearson(models: np.ndarray, labels: np.ndarray, counts: np.ndarray) -> np.ndarray:
    shares = counts / counts.sum(axis=1, keepdims=True)
    labels, models = labels - labels.mean(), models - models.mean(axis=1, keepdims=True)

    def mean(values: np.ndarray) -> np.ndarray:
        return np.asarray(shares @ values)

    found = []
    right, right_scatter = mean(labels), mean(labels**2) - mean(labels) ** 2
    for model in models:
        middle = mean(model)
        scatter = mean(model**2) - middle**2
        varies = (scatter > _noise(model)) & (right_scatter > _noise(labels))
        found.append(_quotient(mean(model * labels) - middle * right, scatter * right_scatter, varies))
    return np.array(found)


def _spearman(models: np.ndarray, labels: np.ndarray, counts: np.ndarray) -> np.ndarray:
    right = _ranks(labels, counts)
    right_scatter = np.einsum("rn,rn,rn->r", counts, right, right)
    found = []
    for model in models:
        ranks = _ranks(model, counts)
        scatter = np.einsum("rn,rn,rn->r", counts, ranks, ranks)
        above = np.einsum("rn,rn,rn->r", counts, ranks, right)
        found.append(_quotient(above, scatter * right_scatter, (scatter > 0) & (right_scatter > 0)))
    return np.array(found)


def _ranks(values: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """The rank of each row in each resample, less the mean of all; equal values share their mean rank."""
    _, place = np.unique(values, return_inverse=True)
    order = np.argsort(place, kind="stable")
    starts = np.searchsorted(place[order], np.arange(place.max() + 1))
    by_value = np.add.reduceat(counts[:, order], starts, axis=1)
    ranks = np.cumsum(by_value, axis=1) - (by_value + counts.sum(axis=1, keepdims=True)) / 2
    return np.asarray(ranks[:, place])


def _noise(values: np.ndarray) -> float:
    """What the variance of equal numbers may come out as."""
    return 1e-14 * float(np.abs(values).max()) ** 2


def _quotient(above: np.ndarray, square_below: np.ndarray, varies: np.ndarray) -> np.ndarray:
    """A correlation; 0 where either side is constant."""
    below = np.sqrt(np.where(varies, square_below, 1.0))
    return np.divide(above, below, out=np.zeros_like(above), where=varies)


_OF_CLASSES: Mapping[str, Callable[[_Tallies], np.ndarray]] = {
    "accuracy": _accuracy,
    "f1": _f1,
    "macro_f1": _macro_f1,
    "matthews_correlation": _matthews,
}
_OF_LABEL_SETS: Mapping[str, Callable[..., np.ndarray]] = {
    "micro_f1": _micro_f1,
    "multilabel_macro_f1": _multilabel_macro_f1,
    "subset_accuracy": _subset_accuracy,
}
_OF_NUMBERS: Mapping[str, Callable[..., np.ndarray]] = {
    "pearson": _pearson,
    "spearman": _spearman,
}
