"""From a space to configurations: every point of a grid, or a seeded random sample.

What an adaptive search proposes depends on results and is no list; here stand its names and what it must be told.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping

import numpy as np

from orchestrator.spec.space import Choice, Domain, Grid, LogUniform, RandInt, Uniform, values_of
from orchestrator.spec.spec import MethodSpec, SweepSpec
from trainables.config import Scalar
from trainables.faults import unknown_name

Space = Mapping[str, Domain | Scalar]
Values = dict[str, Scalar]


def enumerate_configurations(spec: SweepSpec, method: MethodSpec, task: str) -> Iterator[Values]:
    """The configurations of one method entry on the task of this name, none twice; none of an adaptive search.

    A random search that draws a configuration again has so many fewer of them. What stands below the method overrides
    the shared space. The spec must be free of `search_faults`.
    """
    enumerate_points = ENUMERATED.get(spec.search.algorithm)
    if enumerate_points is not None:
        yield from _distinct(enumerate_points({**spec.space, **method.space}, spec, f"{task}:{method.method}"))


def draw_configurations(spec: SweepSpec, method: MethodSpec, task: str) -> Iterator[Values]:
    """The configurations that a random search of the same spec would draw, none twice."""
    return _distinct(_random({**spec.space, **method.space}, spec, f"{task}:{method.method}"))


# More would take minutes to plan and gigabytes to hold; nobody trains so many.
MAX_TRIALS = 1_000_000


def search_faults(spec: SweepSpec) -> list[str]:
    """Every reason why the spec's search algorithm cannot search its spaces."""
    search = spec.search
    known = [*ENUMERATED, *ADAPTIVE]
    if search.algorithm not in known:
        return [f"search.algorithm: {unknown_name('search algorithm', search.algorithm, known)}"]
    faults = []
    if search.algorithm != "grid":
        if search.num_samples is None:
            rule = f"{search.algorithm} search needs a whole number >= 1"
            faults.append(f"search.num_samples: {rule}, but it is missing")
    else:
        if search.num_samples is not None:
            rule = "grid search tries every point and takes no num_samples (the other algorithms do)"
            faults.append(f"search.num_samples: {rule}, but got {search.num_samples}")
        spaces = [("space", spec.space), *((method.method, method.space) for method in spec.methods)]
        for where, space in spaces:
            for name, entry in space.items():
                if isinstance(entry, Uniform | LogUniform | RandInt):
                    rule = "grid search needs a grid, a choice or a single value (the other algorithms take ranges too)"
                    faults.append(f"{where}.{name}: {rule}, but got {entry.to_json()}")
    if (count := _count_at_most(spec)) > MAX_TRIALS:
        faults.append(f"a sweep must have at most {MAX_TRIALS:,} trials, but this one has up to {count:,}")
    return faults


def _count_at_most(spec: SweepSpec) -> int:
    """The number of trials if no two are equal."""
    if spec.search.algorithm != "grid":
        configurations = len(spec.methods) * (spec.search.num_samples or 0)
    else:
        spaces = [{**spec.space, **method.space} for method in spec.methods]
        sizes = [[len(entry.values) for entry in s.values() if isinstance(entry, Grid | Choice)] for s in spaces]
        configurations = sum(math.prod(numbers) for numbers in sizes)
    return len(spec.tasks) * configurations * len(spec.seeds)


def _grid(space: Space, spec: SweepSpec, salt: str) -> Iterator[Values]:
    names = list(space)
    choices = [values_of(entry) for entry in space.values()]
    for point in itertools.product(*choices):
        yield dict(zip(names, point, strict=True))


def _random(space: Space, spec: SweepSpec, salt: str) -> Iterator[Values]:
    # A stream of its own for each task and method, so that adding one leaves the others' samples as they were; drawn
    # in the order of the names, so that the order in which a space is written does not matter.
    key = hashlib.sha256(f"{spec.search.seed}:{salt}".encode()).digest()
    generator = np.random.default_rng(int.from_bytes(key[:8], "big"))
    for _ in range(spec.search.num_samples or 0):
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


ENUMERATED: dict[str, Callable[[Space, SweepSpec, str], Iterator[Values]]] = {"grid": _grid, "random": _random}
# Those that learn from results; `orchestrator.scheduling.samplers` follows them.
ADAPTIVE = ("tpe", "gp", "cmaes", "nsga2")
