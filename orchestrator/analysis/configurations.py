"""From trials to configurations: replicates become a mean and a standard error, and one configuration is chosen.

Choosing looks at validation scores only. Test scores are summarised beside them and never consulted.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from orchestrator.analysis.statistics.intervals import mean_and_standard_error
from orchestrator.record import TrialStatus
from orchestrator.spec.backbones import apart
from trainables import metrics
from trainables.config import HYPERPARAMETERS

T = TypeVar("T")

# A trial of a configuration: its seed, and its fold, -1 where the task is not cut into folds.
Replicate = tuple[int, int]

# Columns of the trials table that are the same for all trials of a configuration; the sizes are null where unmeasured.
IDENTITY = ("task", "backbone", "method")
SIZES = ("trained_params", "trained_params_without_head", "total_params")

# The columns every trials table has. What is not among them is a hyperparameter, or a component of the metric on a
# split ("validation/...", "test/...").
RECORDED: dict[str, pa.DataType] = {
    **dict.fromkeys(("sweep", "trial_id", "config_id", *IDENTITY), pa.string()),
    "seed": pa.int64(),
    "fold": pa.int64(),
    "status": pa.string(),
    **dict.fromkeys(SIZES, pa.int64()),
    "metric": pa.string(),
    **dict.fromkeys(("validation_score", "test_score"), pa.float64()),
    "best_epoch": pa.int64(),
    **dict.fromkeys(("duration_s", "examples_per_second", "pack_size"), pa.float64()),
    "peak_memory_bytes": pa.int64(),
    **dict.fromkeys(("started_at", "engine", "error"), pa.string()),
    "provenance": pa.struct([("commit", pa.string())]),
    "schema_version": pa.int64(),
}


class _Column(Generic[T]):
    """An attribute of a Configuration whose value stands in a column of its name."""

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    def __get__(self, configuration: Configuration, owner: type) -> T:
        value: T = configuration._columns.single[self._name][configuration._row]
        return value


class _Numbers:
    """The known numbers of each configuration."""

    def __init__(self, values: np.ndarray, starts: np.ndarray, replicates: Replicates | None = None) -> None:
        """Of `(num_trials,)` numbers, NaN where unknown, in the order of configurations, which begin at `starts`."""
        is_known = np.isfinite(values)
        self._known_rows = np.flatnonzero(is_known)
        self._replicates = replicates
        self._numbers = tuple(values[is_known].tolist())  # one configuration's after the other's
        self._bounds = np.searchsorted(self._known_rows, [*starts, len(values)]).tolist()
        self._summaries: list[SeedSummary | None] = [None] * len(starts)

    def of(self, row: int) -> tuple[float, ...]:
        return self._numbers[self._bounds[row] : self._bounds[row + 1]]

    def summary(self, row: int) -> SeedSummary | None:
        """None where no number is known."""
        if self._summaries[row] is None and (scores := self.of(row)):
            of_these: tuple[Replicate, ...] = ()
            num_folds = None
            if self._replicates is not None:
                of_these = self._replicates.of(self._known_rows[self._bounds[row] : self._bounds[row + 1]])
                num_folds = self._replicates.num_folds[row]
            self._summaries[row] = SeedSummary(
                scores=scores, mean=math.fsum(scores) / len(scores), replicates=of_these, num_folds=num_folds
            )
        return self._summaries[row]

    def sums(self) -> list[float | None]:
        each = (self.of(row) for row in range(len(self._summaries)))
        return [math.fsum(own) if own else None for own in each]


@dataclass(frozen=True, kw_only=True)
class Replicates:
    """Which replicate of its configuration each trial is, in the order of configurations."""

    seeds: np.ndarray  # (num_trials,), NaN where unknown
    folds: np.ndarray  # (num_trials,), NaN where the task is not cut into folds
    num_folds: Sequence[int | None]  # of each configuration

    def of(self, rows: np.ndarray) -> tuple[Replicate, ...]:
        """Of some of the trials."""
        pairs = zip(np.nan_to_num(self.seeds[rows], nan=-1), np.nan_to_num(self.folds[rows], nan=-1), strict=True)
        return tuple((int(seed), int(fold)) for seed, fold in pairs)


@dataclass(frozen=True, kw_only=True)
class _Columns:
    """What is known of all configurations, in their order."""

    single: Mapping[str, Sequence[Any]]  # one value each
    hyperparameters: Mapping[str, Sequence[Any]]
    # Of completed trials, in the order of their seeds and folds:
    validation: _Numbers
    test: _Numbers
    seconds: _Numbers  # of an engine
    memory: _Numbers  # bytes, at the peak


@dataclass(frozen=True, kw_only=True, slots=True)
class SeedSummary:
    """What the replicates of one configuration say about one score, in the metric's unit.

    A replicate is a seed, or a seed on a fold where the task is cut into folds.
    """

    scores: tuple[float, ...]  # in the order of seeds and folds, at least one
    mean: float
    replicates: tuple[Replicate, ...] = ()  # of each score; empty where that is not known
    num_folds: int | None = None  # that the task is cut into, as far as trials of the configuration show it

    @property
    def num_seeds(self) -> int:
        """How many replicates there are; of a task that is not cut into folds, seeds."""
        return len(self.scores)

    @property
    def sem(self) -> float | None:
        """The standard error of the mean; None where there is one replicate.

        Over folds it is too small, since they share rows that they train on: see `replicates.difference`.
        """
        return mean_and_standard_error(self.scores)[1]


class Configuration:
    """One configuration with all its recorded trials; `validation` and `test` rest on the completed ones.

    A row of columns that all configurations share: a large sweep has tens of thousands, and a question looks at most
    of them only to pass them over.
    """

    __slots__ = ("_columns", "_row")

    config_id = _Column[str]()
    task = _Column[str]()
    backbone = _Column[str]()
    method = _Column[str]()
    metric = _Column[str | None]()
    trained_params = _Column[int | None]()
    trained_params_without_head = _Column[int | None]()
    total_params = _Column[int | None]()
    num_trials = _Column[int]()
    num_failed = _Column[int]()
    engine_seconds = _Column[float | None]()  # of all its trials, whatever became of them

    def __init__(self, columns: _Columns, row: int) -> None:
        self._columns = columns
        self._row = row

    @property
    def hyperparameters(self) -> Mapping[str, Any]:
        return {name: column[self._row] for name, column in self._columns.hyperparameters.items()}

    @property
    def validation(self) -> SeedSummary | None:
        return self._columns.validation.summary(self._row)

    @property
    def test(self) -> SeedSummary | None:
        return self._columns.test.summary(self._row)

    @property
    def seconds_per_trial(self) -> float | None:
        """Of an engine, as a mean over its completed trials."""
        seconds = self._columns.seconds.of(self._row)
        return math.fsum(seconds) / len(seconds) if seconds else None

    @property
    def peak_memory_bytes(self) -> int | None:
        """The highest of its completed trials."""
        memory = self._columns.memory.of(self._row)
        return int(max(memory)) if memory else None

    def value(self, column: str) -> Any:
        """What this configuration has in a column of the trials table; null where the column does not apply."""
        hyperparameters = self._columns.hyperparameters
        return hyperparameters[column][self._row] if column in hyperparameters else getattr(self, column)


def hyperparameter_columns(trials: pa.Table) -> list[str]:
    """The columns of a trials table that hold hyperparameters, in their order."""
    return [name for name in trials.column_names if name not in RECORDED and "/" not in name]


def backbone_names(trials: pa.Table) -> dict[str, str]:
    """What the backbones in a table's column are called; nothing where there is one, which needs no name."""
    return apart(sorted(name for name in pc.unique(trials["backbone"]).to_pylist() if name is not None))


def varying_hyperparameters(trials: pa.Table) -> list[str]:
    """Those with more than one value on a backbone, in their order; of a method's options, within a method too."""

    def varies(name: str) -> bool:
        # Defaults may differ between backbones, and those of options between methods.
        within = ["backbone"] if name in HYPERPARAMETERS else ["backbone", "method"]
        distinct = trials.filter(pc.is_valid(trials[name])).group_by([*within, name]).aggregate([])
        return len(distinct) > len(distinct.group_by(within).aggregate([]))

    return [name for name in hyperparameter_columns(trials) if varies(name)]


def group_by_configuration(trials: pa.Table) -> list[Configuration]:
    """A Configuration per config_id, sorted by it, of a table with the columns of `RECORDED`.

    Works on whole columns, since a large sweep has a hundred thousand trials.
    """
    if not len(trials):
        return []
    ids, order, starts = _rows_by_configuration(trials)
    status = trials["status"].to_numpy()[order]
    is_completed = status == TrialStatus.COMPLETED.value
    seconds = engine_seconds(trials)[order]
    folds = _floats(trials["fold"])[order]
    replicates = Replicates(
        seeds=_floats(trials["seed"])[order],
        folds=folds,
        num_folds=_numbers_of_folds(folds, told_folds(trials)[order], starts),
    )

    def of_completed(values: np.ndarray) -> _Numbers:
        return _Numbers(np.where(is_completed, values, np.nan), starts, replicates)

    columns = _Columns(
        single={
            "config_id": ids,
            **{name: _first_known(trials[name], order, starts) for name in (*IDENTITY, *SIZES, "metric")},
            "num_trials": np.diff([*starts, len(order)]).tolist(),
            "num_failed": np.add.reduceat(status == TrialStatus.FAILED.value, starts, dtype=np.int64).tolist(),
            "engine_seconds": _Numbers(seconds, starts).sums(),
        },
        hyperparameters={name: _first_known(trials[name], order, starts) for name in hyperparameter_columns(trials)},
        validation=of_completed(_floats(trials["validation_score"])[order]),
        test=of_completed(_floats(trials["test_score"])[order]),
        seconds=of_completed(seconds),
        memory=of_completed(_floats(trials["peak_memory_bytes"])[order]),
    )
    return [Configuration(columns, row) for row in range(len(ids))]


def engine_seconds(trials: pa.Table) -> np.ndarray:
    """What each trial took of an engine's time, as `(num_trials,)` seconds, NaN where it was not measured.

    Trials that train together share their engine, so this is `duration_s` over `pack_size`; records of old know no
    packs.
    """
    size = _floats(trials["pack_size"])
    return _floats(trials["duration_s"]) / np.where(size >= 1, size, 1.0)


def _rows_by_configuration(trials: pa.Table) -> tuple[list[str], np.ndarray, np.ndarray]:
    """The ids in their order, the rows sorted by id, seed and fold, and where in these the rows of each id begin."""
    encoded = pc.dictionary_encode(trials["config_id"])
    encoded = encoded.combine_chunks() if isinstance(encoded, pa.ChunkedArray) else encoded
    ids = encoded.dictionary.to_pylist()
    by_id = sorted(range(len(ids)), key=ids.__getitem__)
    place = np.empty(len(ids), dtype=np.int64)
    place[by_id] = np.arange(len(ids))
    codes = place[encoded.indices.to_numpy()]
    order = np.lexsort((_floats(trials["fold"]), _floats(trials["seed"]), codes))
    return [ids[index] for index in by_id], order, np.searchsorted(codes[order], np.arange(len(ids)))


def told_folds(trials: pa.Table) -> np.ndarray:
    """Into how many folds the task of each trial is cut, as `(num_trials,)` numbers, NaN where its record says none."""
    provenance = trials["provenance"]
    if not any(field.name == "folds" for field in provenance.type):
        return np.full(len(trials), np.nan)
    return _floats(pc.struct_field(provenance, "folds"))


def _numbers_of_folds(folds: np.ndarray, told: np.ndarray, starts: np.ndarray) -> list[int | None]:
    """How many folds each configuration has: as its trials say, or one more than the last that any was validated on.

    Of an unfinished sweep not every fold may have a trial yet.
    """
    has_any = np.maximum.reduceat(np.nan_to_num(folds, nan=-1), starts) >= 0
    number = np.maximum.reduceat(np.fmax(np.nan_to_num(folds + 1, nan=0), np.nan_to_num(told, nan=0)), starts)
    return [int(each) if any_fold else None for each, any_fold in zip(number, has_any, strict=True)]


def _first_known(column: pa.ChunkedArray, order: np.ndarray, starts: np.ndarray) -> list[Any]:
    """Of each configuration the first value that is not null, or None."""
    is_known = pc.is_valid(column).to_numpy()[order]
    first = np.minimum.reduceat(np.where(is_known, np.arange(len(order)), len(order)), starts)
    rows = pa.array(order[np.minimum(first, len(order) - 1)], mask=first == len(order))
    return list(pc.take(column, rows).to_pylist())


def _floats(column: pa.ChunkedArray) -> np.ndarray:
    """Numbers, NaN where there is none."""
    return np.asarray(column.cast(pa.float64()).to_numpy())


def higher_is_better(metric: str | None) -> bool:
    """The direction of a metric; of an unrecorded one, that of accuracy. Raises `FaultsError` on an unknown metric."""
    return metric is None or metrics.get(metric).mode == "max"


def gain(ours: float, theirs: float, metric: str | None) -> float:
    """How much better the first score is than the second, in the metric's unit: positive is better, 0 never -0."""
    return ours - theirs if higher_is_better(metric) else theirs - ours


def interval_of_scores(low: float, high: float, metric: str | None) -> str:
    """0.951 to 1.000: an interval of a score in words.

    Student's, of two seeds above all, may go past the best score there is, and is cut there: at 1, where higher is
    better and scores are not in a unit of their own.
    """
    ends_at_one = higher_is_better(metric) and (low + high) / 2 <= 1
    return f"{low:.3f} to {min(high, 1.0) if ends_at_one else high:.3f}"


class Scored(Protocol):
    """What choosing looks at of a configuration."""

    @property
    def config_id(self) -> str: ...

    @property
    def metric(self) -> str | None: ...

    @property
    def trained_params(self) -> int | None: ...

    @property
    def validation(self) -> SeedSummary | None: ...


C = TypeVar("C", bound=Scored)


def contenders(configurations: Iterable[C]) -> list[C]:
    """The configurations with as many completed replicates as the best-covered one, best first.

    The mean of few seeds scatters more than the mean of many, so while a sweep is unfinished (or after failures) a
    single lucky seed would win; a configuration competes once it has as many scores as any other. Pruned ones have no
    score: one that was pruned on some gives way to any that was not. Ties go to fewer trained parameters, then to the
    smaller config_id. Empty where nothing is completed.
    """
    scored = [(c, estimate) for c in configurations if (estimate := c.validation) is not None]
    coverage = max((estimate.num_seeds for _, estimate in scored), default=0)
    covered = [(c, estimate) for c, estimate in scored if estimate.num_seeds == coverage]

    def rank(pair: tuple[C, SeedSummary]) -> tuple[float, float, str]:
        configuration, estimate = pair
        loss = -estimate.mean if higher_is_better(configuration.metric) else estimate.mean
        return loss, size_rank(configuration), configuration.config_id

    return [configuration for configuration, _ in sorted(covered, key=rank)]


def replicate_of(seed: int, fold: int | None) -> Replicate:
    """A trial among those of its configuration."""
    return seed, -1 if fold is None else fold


def best_replicate(scores: Mapping[Replicate, float], metric: str | None) -> Replicate:
    """Of the validation scores of a configuration's replicates the best one's replicate, the first of several.

    It is the one whose weights stand for the configuration: what is exported, served and kept.
    """
    sign = 1 if higher_is_better(metric) else -1
    return max(sorted(scores), key=lambda replicate: sign * scores[replicate])


def size_rank(configuration: Scored) -> float:
    """Orders by trained parameters, an unknown number last."""
    return math.inf if configuration.trained_params is None else configuration.trained_params


def group_by(
    configurations: Iterable[Configuration], columns: Sequence[str]
) -> dict[tuple[Any, ...], list[Configuration]]:
    """Configurations by their values in some columns, the groups sorted by these with null last."""
    groups: dict[tuple[Any, ...], list[Configuration]] = {}
    for configuration in configurations:
        groups.setdefault(tuple(configuration.value(column) for column in columns), []).append(configuration)
    order = sorted(groups, key=lambda key: tuple((value is None, "" if value is None else value) for value in key))
    return {key: groups[key] for key in order}
