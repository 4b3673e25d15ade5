"""The one door to Optuna: the searcher of one task and method, Ray Tune's OptunaSearch with one of Optuna's samplers.

A searcher proposes points of a space and is told what they are worth. To add an algorithm, add its name to `ADAPTIVE`
in `orchestrator/planning/grid_random.py` and its sampler to `SAMPLERS`.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import warnings
from collections.abc import Callable, Mapping
from typing import Any

import optuna
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.samplers import BaseSampler, CmaEsSampler, GPSampler, NSGAIISampler, TPESampler
from optuna.samplers.nsgaii import BLXAlphaCrossover
from ray.tune.search.optuna import OptunaSearch

from orchestrator.planning.grid_random import Space, Values
from orchestrator.spec.space import Choice, Domain, Grid, LogUniform, RandInt, Uniform, is_searched, same
from orchestrator.spec.spec import SearchSpec
from trainables.config import Scalar

# What a searcher is told of a point. NSGA-II weighs the score against the size; the others look at the score alone.
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
        kind = SAMPLERS[search.algorithm]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            self._sampler = kind(_seed(f"{search.seed}:{name}:{earlier}"), search.num_samples or 1)
        self._has_two_aims = isinstance(self._sampler, NSGAIISampler)
        self._search: OptunaSearch | None = None  # of a single point nothing is to be learned
        if self._searched:
            self._search = OptunaSearch(
                {key: _distribution(entry) for key, entry in self._searched.items()},
                metric=[SCORE, SIZE] if self._has_two_aims else SCORE,
                mode=[mode, "min"] if self._has_two_aims else mode,
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
            self._search.on_trial_complete(
                key, {SCORE: score, **({SIZE: trained_params} if self._has_two_aims else {})}
            )


class _Retracing(BaseSampler):
    """A sampler that, while `given` is set, takes this point as if it had drawn it itself.

    Points of an earlier run enter by this way and not as OptunaSearch's `points_to_evaluate` or `add_evaluated_point`:
    CMA-ES and NSGA-II write down to which generation a point belongs when they draw it, and of points that enter by
    those ways, where nothing is drawn, they learn nothing.
    """

    given: Mapping[str, Any] | None = None
    has_generations = False

    def sample_relative(
        self, study: optuna.Study, trial: optuna.trial.FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        if self.given is None:
            return super().sample_relative(study, trial, search_space)  # type: ignore[safe-super]
        if not self.has_generations:
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


class _Tpe(_Retracing, TPESampler):
    """Watanabe 2023, arXiv:2304.11127."""


class _Gp(_Retracing, GPSampler):
    """Log expected improvement (Ament et al. 2023, arXiv:2310.20708)."""


class _CmaEs(_Retracing, CmaEsSampler):
    """Hansen & Ostermeier 2001. It knows numbers alone: values of a grid or a choice are drawn by chance."""

    has_generations = True


class _Nsga2(_Retracing, NSGAIISampler):
    """Deb et al. 2002, with the crossover BLX-alpha (Eshelman & Schaffer 1993)."""

    has_generations = True


def _tpe(seed: int, num_samples: int) -> _Tpe:
    # Points under way count as bad ones, so that those proposed meanwhile lie elsewhere.
    return _Tpe(seed=seed, n_startup_trials=_by_chance(num_samples), multivariate=True, constant_liar=True)


def _gp(seed: int, num_samples: int) -> _Gp:
    return _Gp(seed=seed, n_startup_trials=_by_chance(num_samples), warn_independent_sampling=False)


def _cmaes(seed: int, num_samples: int) -> _CmaEs:
    return _CmaEs(seed=seed, warn_independent_sampling=False)


def _nsga2(seed: int, num_samples: int) -> _Nsga2:
    return _Nsga2(
        seed=seed,
        # Five generations or more, where that leaves each enough to choose parents from; Optuna's 50 are for thousands.
        population_size=max(4, min(50, num_samples // 5)),
        # Optuna's own choice swaps the parents' numbers and never tries one between or beside them. On a trade-off of
        # accuracy and size with 100 samples it was no better than chance, this one was.
        crossover=BLXAlphaCrossover(),
    )


SAMPLERS: dict[str, Callable[[int, int], _Tpe | _Gp | _CmaEs | _Nsga2]] = {
    "tpe": _tpe,
    "gp": _gp,
    "cmaes": _cmaes,
    "nsga2": _nsga2,
}


def _by_chance(num_samples: int) -> int:
    """How many points to draw by chance before learning from them: a third of a small budget, never more than ten."""
    return max(3, min(10, num_samples // 3))


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
