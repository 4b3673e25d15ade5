"""Search algorithms: from a space to configurations. One entry of `SEARCH_ALGORITHMS` each, by the name sweeps use.

An algorithm either lists its configurations, and all trials are known before the first one trains (`Enumerated`), or
it is a sampler of Optuna's, which is asked for one configuration after another and told what they were worth
(`Sampled`). To add one, write its entry here; the contract test of all algorithms runs over it the moment it exists.
Optuna's samplers are imported by `orchestrator.scheduling.samplers` alone, so an entry names one and its settings.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from orchestrator.spec.space import Choice, Domain, Grid, LogUniform, RandInt, Uniform, values_of
from orchestrator.spec.spec import MethodSpec, SearchSpec, SweepSpec
from trainables.config import Scalar
from trainables.faults import unknown_name

Space = Mapping[str, Domain | Scalar]
Values = dict[str, Scalar]


@dataclass(frozen=True, kw_only=True)
class Enumerated:
    """An algorithm whose configurations are known beforehand.

    `points` gives them from a space, the search's settings and a text that differs from task to task and from method
    to method, for what is drawn by chance. One that `is_exhaustive` tries every point of its space, takes no
    `num_samples` and so no ranges; every other one gives at most `num_samples`.
    """

    points: Callable[[Space, SearchSpec, str], Iterator[Values]]
    is_exhaustive: bool = False


@dataclass(frozen=True, kw_only=True)
class InOptuna:
    """An instance of a class of Optuna's, by its dotted name below `optuna.samplers`, made without arguments."""

    name: str


@dataclass(frozen=True, kw_only=True)
class Sampled:
    """An algorithm of Optuna's that is asked for one configuration after another.

    Args:
        sampler: the class in `optuna.samplers`; it takes a `seed`.
        settings: its other arguments, of the number of samples; values are plain, or `InOptuna`.
        weighs_size: whether it is told the trained parameters too, as a second objective that is to be small.
        notes_draws: whether the sampler writes down what it draws, such as the generation that a point belongs to. An
            earlier run's points are then drawn again, so that it does so for them too.
        is_sequence: whether each draw is the next point of one sequence that the seed fixes, whatever the earlier ones
            were worth. It goes on after an earlier run's points, and covers all hyperparameters from the first point.
    """

    sampler: str
    settings: Callable[[int], Mapping[str, Any]]
    weighs_size: bool = False
    notes_draws: bool = False
    is_sequence: bool = False


def space_of(spec: SweepSpec, entry: MethodSpec) -> Space:
    """Where a search of one entry of `methods` looks: what stands below the method, else what all methods share.

    Without the shared hyperparameters that the method does not use: their values would be one configuration.
    """
    # Here, not above: a method is code that needs torch, and `report` and `status` do without it.
    from trainables.methods import method_names, unused_hyperparameters

    unused = unused_hyperparameters(entry.method) if entry.method in method_names() else ()
    return {**{name: domain for name, domain in spec.space.items() if name not in unused}, **entry.space}


def is_adaptive(search: SearchSpec) -> bool:
    """Whether configurations are proposed one after another while others train, so that no plan can list them."""
    return isinstance(SEARCH_ALGORITHMS.get(search.algorithm), Sampled)


def enumerate_configurations(spec: SweepSpec, method: MethodSpec, task: str) -> Iterator[Values]:
    """The configurations of one method entry on the task of this name, none twice; none of an adaptive search.

    They are the same for every backbone. A random search that draws a configuration again has so many fewer of them.
    The spec must be free of `search_faults`.
    """
    algorithm = SEARCH_ALGORITHMS.get(spec.search.algorithm)
    if isinstance(algorithm, Enumerated):
        yield from _distinct(algorithm.points(space_of(spec, method), spec.search, f"{task}:{method.method}"))


def draw_configurations(spec: SweepSpec, method: MethodSpec, task: str) -> Iterator[Values]:
    """The configurations that a random search of the same spec would draw, none twice."""
    return _distinct(_random(space_of(spec, method), spec.search, f"{task}:{method.method}"))


# More would take minutes to plan and gigabytes to hold; nobody trains so many.
MAX_TRIALS = 1_000_000


def search_faults(spec: SweepSpec) -> list[str]:
    """Every reason why the spec's search algorithm cannot search its spaces."""
    name, num_samples = spec.search.algorithm, spec.search.num_samples
    if name not in SEARCH_ALGORITHMS:
        return [f"search.algorithm: {unknown_name('search algorithm', name, SEARCH_ALGORITHMS)}"]
    faults = []
    if not _is_exhaustive(name):
        if num_samples is None:
            rule = f"{name} search needs a whole number >= 1"
            faults.append(f"search.num_samples: {rule}, but it is missing")
    else:
        if num_samples is not None:
            rule = f"{name} search tries every point and takes no num_samples (the other algorithms do)"
            faults.append(f"search.num_samples: {rule}, but got {num_samples}")
        spaces = [("space", spec.space), *((method.method, method.space) for method in spec.methods)]
        for where, space in spaces:
            for key, entry in space.items():
                if isinstance(entry, Uniform | LogUniform | RandInt):
                    rule = (
                        f"{name} search needs a grid, a choice or a single value (the other algorithms take ranges too)"
                    )
                    faults.append(f"{where}.{key}: {rule}, but got {entry.to_json()}")
    if (count := _count_at_most(spec)) > MAX_TRIALS:
        faults.append(f"a sweep must have at most {MAX_TRIALS:,} trials, but this one has up to {count:,}")
    return faults


def _count_at_most(spec: SweepSpec) -> int:
    """The number of trials if no two are equal."""
    if not _is_exhaustive(spec.search.algorithm):
        configurations = len(spec.methods) * (spec.search.num_samples or 0)
    else:
        spaces = [space_of(spec, method) for method in spec.methods]
        sizes = [[len(entry.values) for entry in s.values() if isinstance(entry, Grid | Choice)] for s in spaces]
        configurations = sum(math.prod(numbers) for numbers in sizes)
    return len(spec.tasks) * len(spec.backbones) * configurations * len(spec.seeds) * (spec.folds or 1)


def _is_exhaustive(name: str) -> bool:
    algorithm = SEARCH_ALGORITHMS[name]
    return isinstance(algorithm, Enumerated) and algorithm.is_exhaustive


def _grid(space: Space, search: SearchSpec, salt: str) -> Iterator[Values]:
    names = list(space)
    choices = [values_of(entry) for entry in space.values()]
    for point in itertools.product(*choices):
        yield dict(zip(names, point, strict=True))


def _random(space: Space, search: SearchSpec, salt: str) -> Iterator[Values]:
    # A stream of its own for each task and method, so that adding one leaves the others' samples as they were; drawn
    # in the order of the names, so that the order in which a space is written does not matter.
    key = hashlib.sha256(f"{search.seed}:{salt}".encode()).digest()
    generator = np.random.default_rng(int.from_bytes(key[:8], "big"))
    for _ in range(search.num_samples or 0):
        drawn = {name: _draw(space[name], generator) for name in sorted(space)}
        yield {name: drawn[name] for name in space}


def _draw(entry: Domain | Scalar, generator: np.random.Generator) -> Scalar:
    return entry.sample(generator) if isinstance(entry, Domain) else entry


def _distinct(points: Iterable[Values]) -> Iterator[Values]:
    seen = set()
    for values in points:
        key = json.dumps(values, sort_keys=True)
        if key not in seen:
            seen.add(key)
            yield values


def _by_chance(num_samples: int) -> int:
    """How many points to draw by chance before learning from them: a third of a small budget, never more than ten."""
    return max(3, min(10, num_samples // 3))


SEARCH_ALGORITHMS: dict[str, Enumerated | Sampled] = {
    "grid": Enumerated(points=_grid, is_exhaustive=True),
    "random": Enumerated(points=_random),
    # Watanabe 2023, arXiv:2304.11127. Points under way count as bad ones: those proposed meanwhile lie elsewhere.
    "tpe": Sampled(
        sampler="TPESampler",
        settings=lambda num_samples: {
            "n_startup_trials": _by_chance(num_samples),
            "multivariate": True,
            "constant_liar": True,
        },
    ),
    # Log expected improvement (Ament et al. 2023, arXiv:2310.20708).
    "gp": Sampled(
        sampler="GPSampler",
        settings=lambda num_samples: {
            "n_startup_trials": _by_chance(num_samples),
            "warn_independent_sampling": False,
        },
    ),
    # Hansen & Ostermeier 2001. It knows numbers alone: values of a grid or a choice are drawn by chance.
    "cmaes": Sampled(
        sampler="CmaEsSampler",
        settings=lambda num_samples: {"warn_independent_sampling": False},
        notes_draws=True,
    ),
    # Deb et al. 2002, with the crossover BLX-alpha (Eshelman & Schaffer 1993).
    "nsga2": Sampled(
        sampler="NSGAIISampler",
        settings=lambda num_samples: {
            # Five generations or more, where that leaves each enough to choose parents from; Optuna's 50 are for
            # thousands.
            "population_size": max(4, min(50, num_samples // 5)),
            # Optuna's own choice swaps the parents' numbers and never tries one between or beside them. On a trade-off
            # of accuracy and size with 100 samples it was no better than chance, this one was.
            "crossover": InOptuna(name="nsgaii.BLXAlphaCrossover"),
        },
        weighs_size=True,
        notes_draws=True,
    ),
    # Sobol's sequence (1967), scrambled as by Owen 1998: numbers by chance that cover a space evenly.
    "qmc": Sampled(
        sampler="QMCSampler",
        settings=lambda num_samples: {"qmc_type": "sobol", "scramble": True, "warn_independent_sampling": False},
        notes_draws=True,
        is_sequence=True,
    ),
}
