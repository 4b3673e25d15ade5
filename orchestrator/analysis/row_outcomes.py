"""How the configurations that an answer is about did on each row, where the store keeps what they predicted.

Read for these configurations alone, all in one go, and remembered: no answer reads the same predictions twice. What
cannot be read is as if it were not kept, since a table of scores must not fail for want of an interval.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from orchestrator.analysis.configurations import Configuration, Replicate, higher_is_better
from orchestrator.analysis.questions.predictions import PredictionSource
from orchestrator.analysis.replicates import common_folds, mean_of_folds, shared_replicates
from orchestrator.analysis.resampled_metrics import (
    MEANS_OVER_ROWS,
    RESAMPLES,
    SHARES_OF_ROWS,
    paired_p_value,
    row_outcomes,
)
from orchestrator.analysis.statistics import intervals, significance
from orchestrator.analysis.statistics.intervals import Estimate
from orchestrator.record import TrialStatus
from trainables import metrics
from trainables.faults import FaultsError

logger = logging.getLogger(__name__)

Mixture = Sequence[tuple[Configuration, float]]  # what stands for a side, with weights that add up to 1


@dataclass(frozen=True, kw_only=True, eq=False)
class RowOutcomes:
    """What the completed seeds of one configuration did on the rows of one split, in the order of the seeds."""

    rows: str  # an id, equal for equal rows
    labels: np.ndarray  # (num_rows,), or (num_rows, C) of truth values where a row may have several labels
    predictions: np.ndarray  # (num_seeds, num_rows), or (num_seeds, num_rows, C)
    num_labels: int | None  # None unless classes are predicted
    outcomes: np.ndarray  # (num_seeds, num_rows), or of groups of rows; each seed's mean is its score, or near it
    confidence: np.ndarray | None  # (num_seeds, num_rows), the largest probability; None where no scores are kept

    def taken(self, models: Sequence[int]) -> RowOutcomes:
        """Of some of the models, in this order."""
        confidence = None if self.confidence is None else self.confidence[list(models)]
        return replace(
            self,
            predictions=self.predictions[list(models)],
            outcomes=self.outcomes[list(models)],
            confidence=confidence,
        )


@dataclass(frozen=True, kw_only=True)
class RowComparison:
    """Two sides on the same rows of a split, each a mixture of configurations with weights that add up to 1."""

    metric: str
    first: Sequence[tuple[RowOutcomes, float]]
    second: Sequence[tuple[RowOutcomes, float]]
    folds: int | None = None  # where there are any, both sides have models of these seeds and folds, in their order:
    replicates: Sequence[Replicate] = ()

    def estimate(self) -> Estimate | None:
        """The first less the second for other seeds and rows, positive where the first is better.

        None where a side has one seed. Its mean is that of the outcomes; see `row_outcomes`.
        """
        sign = 1.0 if higher_is_better(self.metric) else -1.0
        ours, theirs = (
            sign * np.sum([weight * found.outcomes[:n] for found, weight in side], axis=0) for side, n in self._sides()
        )
        if self.folds is not None:
            return intervals.estimate_over_rows(mean_of_folds(ours - theirs, self.replicates), self.folds)
        return intervals.difference_over_rows(ours, theirs)

    def p_value(self) -> float:
        """Over rows, of the models as they are trained.

        Of rows that are right or wrong it is that of the exact sign-flip test, which is McNemar's with one seed; else
        that of the paired bootstrap.
        """
        sides = self._sides()
        if self.metric in SHARES_OF_ROWS and len(self.first) == len(self.second) == 1:
            right = [side[0][0].outcomes for side, _ in sides]
            return significance.sign_flip_over_rows(right[0], right[1])
        rng = np.random.default_rng(0)
        if self.metric in MEANS_OVER_ROWS:
            ours, theirs = (
                np.sum([weight * found.outcomes[:n].mean(axis=0) for found, weight in side], axis=0)
                for side, n in sides
            )
            return significance.paired_bootstrap(ours, theirs, rng=rng, num_resamples=RESAMPLES).p_value
        models = [
            (
                np.concatenate([np.full(n, weight / n) for _, weight in side]),
                np.concatenate([found.predictions[:n] for found, _ in side]),
            )
            for side, n in sides
        ]
        kept = self.first[0][0]
        return paired_p_value(self.metric, kept.labels, models[0], models[1], kept.num_labels, rng=rng)

    def _sides(self) -> list[tuple[Sequence[tuple[RowOutcomes, float]], int]]:
        """Both, with how many seeds all of its configurations have: the first ones stand for each other's."""
        return [(side, min(len(found.outcomes) for found, _ in side)) for side in (self.first, self.second)]


class KeptRows:
    """The outcomes by row of what was asked for so far."""

    def __init__(self, source: PredictionSource | None, trials: pa.Table) -> None:
        """`trials` has a row per recorded trial."""
        self._source, self._trials = source, trials
        self._known: dict[tuple[str, str], RowOutcomes | None] = {}

    def load(self, asked: Iterable[tuple[Configuration, str]]) -> None:
        """Read what configurations predicted of a split, all that is not known yet with one request a split."""
        by_split: dict[str, dict[str, Configuration]] = {}
        for configuration, split in asked:
            if (configuration.config_id, split) not in self._known:
                by_split.setdefault(split, {})[configuration.config_id] = configuration
        for split, wanted in by_split.items():
            trainings = self._trainings(list(wanted), split) if self._source else {}
            found = self._read(trainings, split)
            for config_id, configuration in wanted.items():
                tables = [found.get(trial_id) for trial_id in trainings.get(config_id, ())]
                self._known[config_id, split] = _outcomes(configuration, tables)

    def of(self, configuration: Configuration, split: str) -> RowOutcomes | None:
        """None unless every completed replicate has predictions of this split, all of the same rows.

        Folds are validated on different rows, so there is nothing of their validation.
        """
        self.load([(configuration, split)])
        return self._known[configuration.config_id, split]

    def estimate(self, configuration: Configuration, split: str) -> Estimate | None:
        """The recorded mean score, for other seeds or folds and other rows. None without predictions, or with one."""
        found, summary = self.of(configuration, split), getattr(configuration, split)
        if found is None:
            return None
        outcomes = found.outcomes
        if summary.num_folds is not None:
            outcomes = mean_of_folds(outcomes, summary.replicates)
        estimate = intervals.estimate_over_rows(outcomes, summary.num_folds)
        return None if estimate is None else _around(summary.mean, estimate)

    def compare(self, first: Mixture, second: Mixture, split: str) -> RowComparison | None:
        """Two sides row by row. None unless all of both is kept, of the same rows."""
        sides = [
            [(found, weight) for c, weight in side if (found := self.of(c, split)) is not None]
            for side in (first, second)
        ]
        metric = first[0][0].metric
        if metric is None or [len(first), len(second)] != [len(side) for side in sides]:
            return None
        if len({found.rows for side in sides for found, _ in side}) > 1:
            return None
        summaries = [[getattr(c, split) for c, _ in side] for side in (first, second)]
        folds, shared = common_folds([*summaries[0], *summaries[1]]), list[Replicate]()
        if folds is not None:  # these are paired, so both sides must have the same ones
            shared = shared_replicates([*summaries[0], *summaries[1]])
            if not shared:
                return None
            sides = [
                [
                    (found.taken([summary.replicates.index(each) for each in shared]), weight)
                    for (found, weight), summary in zip(side, own, strict=True)
                ]
                for side, own in zip(sides, summaries, strict=True)
            ]
        return RowComparison(metric=metric, first=sides[0], second=sides[1], folds=folds, replicates=shared)

    def _trainings(self, config_ids: Sequence[str], split: str) -> dict[str, dict[str, str | None]]:
        """config_id -> trial_id -> started_at of the trials whose scores its summary has, in the same order."""
        of_these = pc.is_in(self._trials["config_id"], pa.array(config_ids, pa.string()))
        completed = pc.equal(self._trials["status"], TrialStatus.COMPLETED.value)
        columns = ["config_id", "trial_id", "started_at", "seed", "fold", f"{split}_score"]
        rows = self._trials.filter(pc.and_(of_these, completed)).select(columns).to_pylist()
        scored = [row for row in rows if row[f"{split}_score"] is not None and np.isfinite(row[f"{split}_score"])]
        found: dict[str, dict[str, str | None]] = {}
        for row in sorted(scored, key=lambda row: tuple(_or_last(row[name]) for name in ("seed", "fold"))):
            found.setdefault(row["config_id"], {})[row["trial_id"]] = row["started_at"]
        return found

    def _read(self, trainings: Mapping[str, Mapping[str, str | None]], split: str) -> Mapping[str, pa.Table]:
        together = {trial_id: at for own in trainings.values() for trial_id, at in own.items()}
        if self._source is None or not together:
            return {}
        try:
            return self._source.read(together, split)
        except FaultsError as torn:
            logger.warning("intervals are over seeds alone where predictions cannot be read: %s", torn)
        found: dict[str, pa.Table] = {}
        for own in trainings.values():
            try:
                found |= self._source.read(own, split)
            except FaultsError:  # which has been told
                logger.debug("no predictions of %s", ", ".join(own))
        return found


def _or_last(number: int | None) -> float:
    return math.inf if number is None else number


def _outcomes(configuration: Configuration, tables: Sequence[pa.Table | None]) -> RowOutcomes | None:
    """Of the tables of a configuration's seeds, None standing for one without predictions."""
    there = [table for table in tables if table is not None and len(table)]
    metric = configuration.metric
    if metric is None or not there or len(there) < len(tables):
        return None
    if len({table["rows"][0].as_py() for table in there}) > 1:
        return None
    scores = [_scores(table) for table in there]
    columns = [there[0]["label"], *(table["prediction"] for table in there)]
    if metrics.get(metric).kind == "multilabel":
        labels, *models = _matrices(columns, 0 if scores[0] is None else scores[0].shape[1])
    else:
        labels, *models = map(_array, columns)
    predictions = np.stack(models)
    num_labels = None
    if metrics.get(metric).kind == "classification":
        listed = scores[0].shape[1] if scores[0] is not None and there[0]["classes"].null_count else 0
        num_labels = max(listed, 1 + int(max(predictions.max(), labels.max())))
    return RowOutcomes(
        rows=there[0]["rows"][0].as_py(),
        labels=labels,
        predictions=predictions,
        outcomes=np.stack([row_outcomes(metric, each, labels, num_labels) for each in predictions]),
        num_labels=num_labels,
        confidence=_confidence(scores),
    )


def _array(column: pa.ChunkedArray) -> np.ndarray:
    """Classes or numbers as such; texts, and lists of them, as objects."""
    if pa.types.is_integer(column.type) or pa.types.is_floating(column.type):
        return np.asarray(column.to_numpy())
    values = np.empty(len(column), dtype=object)
    for row, value in enumerate(column.to_pylist()):
        values[row] = value
    return values


def _matrices(columns: Sequence[pa.ChunkedArray], num_labels: int) -> list[np.ndarray]:
    """Lists of labels as truth values by label, all of as many labels as any of them names, or as are known."""
    lists = [column.combine_chunks() for column in columns]
    places = [(pc.list_parent_indices(each).to_numpy(), each.flatten().to_numpy()) for each in lists]
    num_labels = max([num_labels, *(1 + int(labels.max()) for _, labels in places if len(labels))])
    matrices = [np.zeros((len(each), num_labels), bool) for each in lists]
    for matrix, (rows, labels) in zip(matrices, places, strict=True):
        matrix[rows, labels] = True
    return matrices


def _scores(table: pa.Table) -> np.ndarray | None:
    """The kept logarithms of probabilities as `(num_rows, num_kept)`, or None."""
    if table["scores"].null_count:
        return None
    numbers = pc.list_flatten(table["scores"]).to_numpy()
    return np.asarray(numbers, dtype=np.float32).reshape(len(table), -1)


def _confidence(scores: Sequence[np.ndarray | None]) -> np.ndarray | None:
    """The largest probability of each row, of every seed; the largest is always among those that are kept."""
    kept = [np.exp(each.max(axis=1).astype(np.float64)) for each in scores if each is not None]
    return np.stack(kept) if len(kept) == len(scores) else None


def _around(centre: float, estimate: Estimate) -> Estimate:
    """The estimate with the recorded mean, from which that of pseudo-values may differ in the third digit."""
    return replace(estimate, mean=centre)
