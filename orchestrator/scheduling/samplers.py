"""The searcher of one task and method: Ray Tune's OptunaSearch with one of Optuna's samplers.

The first of two doors to Optuna; the other is `orchestrator.analysis.statistics.importance`, which may not know Ray.

A searcher proposes points of a space and is told what they are worth. Which samplers there are, and how they are set,
is said in `orchestrator/planning/search_algorithms.py`; here they are made.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import operator
import warnings
from collections.abc import Mapping
from typing import Any

import optuna
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.samplers import BaseSampler
from ray.tune.search.optuna import OptunaSearch

from orchestrator.planning.search_algorithms import SEARCH_ALGORITHMS, InOptuna, Sampled, Space, Values
from orchestrator.spec.space import Choice, Domain, Grid, LogUniform, RandInt, Uniform, is_searched, same
from orchestrator.spec.spec import SearchSpec
from trainables.config import Scalar

# What a searcher is told of a point; the size, where it weighs the score against it.
SCORE, SIZE = "score", "trained_params"
# Proposed numbers have so many significant digits. More would say nothing of a training, and less would be lost where a
# range is narrow. The same number then has the same text everywhere, and so the same identity; and a sampler that has
# settled on a point proposes that very point again, which is noticed, and not its neighbour a billionth away.
DIGITS = 6
# Whole numbers of a range with so many of them are found as fractions and rounded: a Gaussian process lists the others.
WIDE = 1000


class Searcher:
    """Proposes points of the space of one task and method and learns from what they are worth.

    Args:
        name: of the task and method; with the search's seed it decides what is proposed.
        space: what to search. Entries of a single value are left out of every point and may be all there is.
        search: algorithm, number of samples and seed.
        mode: whether higher scores are better, "max" or "min".
        earlier: how many points are to be retraced first, of a search that goes on: chance must not repeat itself.
    """

    def __init__(self, name: str, space: Space, search: SearchSpec, mode: str, earlier: int = 0) -> None:
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        self._fixed = {key: _only_value(entry) for key, entry in space.items() if not is_searched(entry)}
        self._searched = {key: entry for key, entry in sorted(space.items()) if is_searched(entry)}  # in any order
        self._keys = map(str, itertools.count())
        algorithm = SEARCH_ALGORITHMS[search.algorithm]
        if not isinstance(algorithm, Sampled):
            raise ValueError(f"{search.algorithm}: what it tries is listed beforehand, and nobody proposes it")
        seed = _seed(f"{search.seed}:{name}:{0 if algorithm.is_sequence else earlier}")
        distributions = {key: _distribution(entry) for key, entry in self._searched.items()}
        self._sampler = _make_sampler(algorithm, seed, search.num_samples or 1, distributions)
        self._weighs_size = algorithm.weighs_size
        self._search: OptunaSearch | None = None  # of a single point nothing is to be learned
        if self._searched:
            self._search = OptunaSearch(
                distributions,
                metric=[SCORE, SIZE] if self._weighs_size else SCORE,
                mode=[mode, "min"] if self._weighs_size else mode,
                sampler=self._sampler,
            )

    def propose(self) -> tuple[str, Values]:
        """The key under which to tell what it is worth, and the point. Never waits for other points to be told."""
        key = next(self._keys)
        drawn = (self._search.suggest(key) or {}) if self._search else {}
        return key, {**self._fixed, **{name: _value(self._searched[name], raw) for name, raw in drawn.items()}}

    def retrace(self, point: Mapping[str, Scalar]) -> str:
        """Take a point as if it had just been proposed; the key under which to tell what it is worth."""
        key = next(self._keys)
        if self._search:
            self._sampler.given = {name: _raw(entry, point[name]) for name, entry in self._searched.items()}
            try:
                self._search.suggest(key)
            finally:
                self._sampler.given = None
        return key

    def tell(self, key: str, score: float | None, trained_params: int | None) -> None:
        """What a point is worth, once for each; a score of None where nothing could be learned of it."""
        if self._search is None:
            return
        if score is None:
            self._search.on_trial_complete(key, error=True)
        else:
            self._search.on_trial_complete(key, {SCORE: score, **({SIZE: trained_params} if self._weighs_size else {})})


class _Retracing(BaseSampler):
    """A sampler that, while `given` is set, takes this point as if it had drawn it itself.

    Points of an earlier run enter by this way and not as OptunaSearch's `points_to_evaluate` or `add_evaluated_point`:
    CMA-ES and NSGA-II write down to which generation a point belongs when they draw it, and of points that enter by
    those ways, where nothing is drawn, they learn nothing.
    """

    given: Mapping[str, Any] | None = None
    notes_draws = False
    sequence_space: dict[str, BaseDistribution] | None = None  # of a sequence: all that is searched

    def infer_relative_search_space(
        self, study: optuna.Study, trial: optuna.trial.FrozenTrial
    ) -> dict[str, BaseDistribution]:
        if self.sequence_space is not None:  # Optuna's own would draw the first point by chance
            return self.sequence_space
        return super().infer_relative_search_space(study, trial)  # type: ignore[safe-super]

    def sample_relative(
        self, study: optuna.Study, trial: optuna.trial.FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        if self.given is None:
            return super().sample_relative(study, trial, search_space)  # type: ignore[safe-super]
        if not self.notes_draws:
            return {}
        drawn = super().sample_relative(study, trial, search_space)  # type: ignore[safe-super]
        return {name: self.given[name] for name in drawn}

    def sample_independent(
        self,
        study: optuna.Study,
        trial: optuna.trial.FrozenTrial,
        param_name: str,
        param_distribution: BaseDistribution,
    ) -> Any:
        if self.given is None:
            return super().sample_independent(study, trial, param_name, param_distribution)  # type: ignore[safe-super]
        return self.given[param_name]


def _make_sampler(
    algorithm: Sampled, seed: int, num_samples: int, distributions: dict[str, BaseDistribution]
) -> _Retracing:
    kind = getattr(optuna.samplers, algorithm.sampler)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        settings = {
            name: operator.attrgetter(value.name)(optuna.samplers)() if isinstance(value, InOptuna) else value
            for name, value in algorithm.settings(num_samples).items()
        }
        sampler: _Retracing = type(kind.__name__, (_Retracing, kind), {})(seed=seed, **settings)
    sampler.notes_draws = algorithm.notes_draws
    sampler.sequence_space = distributions if algorithm.is_sequence else None
    return sampler


def _seed(text: str) -> int:
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big")


def _distribution(entry: Any) -> BaseDistribution:
    match entry:
        case Uniform() | LogUniform():
            return FloatDistribution(entry.low, entry.high, log=isinstance(entry, LogUniform))
        case RandInt() if entry.high - entry.low >= WIDE:
            return FloatDistribution(entry.low, entry.high)
        case RandInt():
            return IntDistribution(entry.low, entry.high)
        case Grid() | Choice():  # as text, in which 1 and true are not equal
            return CategoricalDistribution([json.dumps(value) for value in entry.values])
    raise TypeError(entry)


def _value(entry: Any, raw: Any) -> Scalar:
    """What a point holds for what Optuna drew."""
    match entry:
        case Grid() | Choice():
            return next(value for value in entry.values if json.dumps(value) == raw)
        case RandInt():
            return min(max(round(raw), entry.low), entry.high)
    rounded = float(f"{raw:.{DIGITS}g}")
    return min(max(rounded, float(entry.low)), float(entry.high))


def _raw(entry: Any, value: Scalar) -> Any:
    """What Optuna calls what a point holds."""
    if isinstance(entry, Grid | Choice):
        return json.dumps(next(each for each in entry.values if same(each, value)))
    return value


def _only_value(entry: Domain | Scalar) -> Scalar:
    if isinstance(entry, Grid | Choice):
        return entry.values[0]
    return entry.low if isinstance(entry, Uniform | LogUniform | RandInt) else entry
