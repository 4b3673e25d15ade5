"""From a space to configurations: every point of a grid, or a seeded random sample."""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Callable, Iterator, Mapping

import numpy as np

from orchestrator.space import Choice, Domain, Grid
from orchestrator.spec import MethodSpec, SweepSpec
from trainables.config import Scalar
from trainables.faults import unknown_name

Space = Mapping[str, Domain | Scalar]
Values = dict[str, Scalar]


def enumerate_configurations(spec: SweepSpec, method: MethodSpec, task: str) -> Iterator[Values]:
    """The configurations of one method entry on one task, none twice.

    What stands below the method overrides the shared space. The spec must be free of `search_faults`.
    """
    space: Space = {**spec.space, **method.space}
    seen = set()
    for values in ALGORITHMS[spec.search.algorithm](space, spec, f"{task}:{method.method}"):
        key = json.dumps(values, sort_keys=True)
        if key not in seen:
            seen.add(key)
            yield values


def search_faults(spec: SweepSpec) -> list[str]:
    """Every reason why the spec's search algorithm cannot search its spaces."""
    search = spec.search
    if search.algorithm not in ALGORITHMS:
        return [f"search.algorithm: {unknown_name('search algorithm', search.algorithm, ALGORITHMS)}"]
    if search.algorithm == "random":
        return [] if search.num_samples else ["search.num_samples: is required by random search, but is missing"]
    faults = []
    if search.num_samples is not None:
        faults.append("search.num_samples: grid search tries every point and takes no num_samples; "
                      f"use {{algorithm: random}}, but got {search.num_samples}")  # fmt: skip
    spaces = [("space", spec.space), *((method.method, method.space) for method in spec.methods)]
    for where, space in spaces:
        for name, entry in space.items():
            if hasattr(entry, "sample") and not isinstance(entry, Grid | Choice):
                rule = "grid search needs a grid, a choice or a fixed value"
                faults.append(f"{where}.{name}: {rule} (or search: {{algorithm: random}}), but got {entry}")
    return faults


def _grid(space: Space, spec: SweepSpec, salt: str) -> Iterator[Values]:
    names = list(space)
    choices = [entry.values if isinstance(entry, Grid | Choice) else (entry,) for entry in space.values()]
    for point in itertools.product(*choices):
        yield dict(zip(names, point, strict=True))


def _random(space: Space, spec: SweepSpec, salt: str) -> Iterator[Values]:
    # A stream of its own for each task and method, so that adding one leaves the others' samples as they were.
    key = hashlib.sha256(f"{spec.search.seed}:{salt}".encode()).digest()
    generator = np.random.default_rng(int.from_bytes(key[:8], "big"))
    for _ in range(spec.search.num_samples or 0):
        yield {name: entry.sample(generator) if hasattr(entry, "sample") else entry for name, entry in space.items()}


ALGORITHMS: dict[str, Callable[[Space, SweepSpec, str], Iterator[Values]]] = {"grid": _grid, "random": _random}
