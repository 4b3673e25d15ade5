"""Domains of a search space: small comparable values that say which values a hyperparameter may take.

In a sweep file a domain is a mapping with one key, `{grid: [2, 8, 64]}`; a plain scalar is a fixed value.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from trainables.config import Scalar
from trainables.faults import FaultsError, unknown_name


@dataclass(frozen=True)
class Grid:
    """Every one of these values."""

    values: tuple[Scalar, ...]

    def __init__(self, values: Any) -> None:
        object.__setattr__(self, "values", _distinct("grid", values))

    def sample(self, generator: np.random.Generator) -> Scalar:
        return self.values[int(generator.integers(len(self.values)))]

    def to_json(self) -> dict[str, Any]:
        return {"grid": list(self.values)}


@dataclass(frozen=True)
class Choice:
    """One of these values, drawn with equal chances."""

    values: tuple[Scalar, ...]

    def __init__(self, values: Any) -> None:
        object.__setattr__(self, "values", _distinct("choice", values))

    def sample(self, generator: np.random.Generator) -> Scalar:
        return self.values[int(generator.integers(len(self.values)))]

    def to_json(self) -> dict[str, Any]:
        return {"choice": list(self.values)}


@dataclass(frozen=True)
class Uniform:
    """A number in [low, high], evenly spread."""

    low: float
    high: float

    def __post_init__(self) -> None:
        _check_range("uniform", self.low, self.high)

    def sample(self, generator: np.random.Generator) -> float:
        return float(generator.uniform(self.low, self.high))

    def to_json(self) -> dict[str, Any]:
        return {"uniform": [self.low, self.high]}


@dataclass(frozen=True)
class LogUniform:
    """A number in [low, high], its logarithm evenly spread."""

    low: float
    high: float

    def __post_init__(self) -> None:
        _check_range("loguniform", self.low, self.high)
        if self.low <= 0:
            raise FaultsError("loguniform", [f"loguniform: low must be > 0, but got {self.low!r}"])

    def sample(self, generator: np.random.Generator) -> float:
        drawn = math.exp(generator.uniform(math.log(self.low), math.log(self.high)))
        return float(min(max(drawn, self.low), self.high))  # exp(log(x)) may miss x by a rounding

    def to_json(self) -> dict[str, Any]:
        return {"loguniform": [self.low, self.high]}


@dataclass(frozen=True)
class RandInt:
    """A whole number in [low, high], both ends included, evenly spread."""

    low: int
    high: int

    def __post_init__(self) -> None:
        _check_range("randint", self.low, self.high)
        if not (isinstance(self.low, int) and isinstance(self.high, int)):
            raise FaultsError(
                "randint", [f"randint: both ends must be whole numbers, but got [{self.low!r}, {self.high!r}]"]
            )

    def sample(self, generator: np.random.Generator) -> int:
        return int(generator.integers(self.low, self.high, endpoint=True))

    def to_json(self) -> dict[str, Any]:
        return {"randint": [self.low, self.high]}


Domain = Grid | Choice | Uniform | LogUniform | RandInt
DOMAINS: dict[str, type[Any]] = {cls.__name__.lower(): cls for cls in (Grid, Choice, Uniform, LogUniform, RandInt)}


def parse_domain(value: Any) -> Domain | Scalar:
    """Read one entry of a search space: a domain, its mapping form, or a fixed value.

    Raises `FaultsError` where the value is none of these.
    """
    if isinstance(value, Domain):
        return value
    if _is_single(value):
        return value
    if isinstance(value, Mapping):
        if len(value) != 1:
            raise FaultsError(
                "domain", [f"a domain must have exactly one key ({', '.join(DOMAINS)}), but got {dict(value)!r}"]
            )
        ((name, argument),) = value.items()
        if name not in DOMAINS:
            raise FaultsError("domain", [unknown_name("domain", name, DOMAINS)])
        kind = DOMAINS[name]
        if len(fields(kind)) == 1:
            return kind(argument)
        if not isinstance(argument, list | tuple) or len(argument) != 2:
            raise FaultsError("domain", [f"{name}: must be a pair [low, high], but got {argument!r}"])
        return kind(*argument)
    hint = f"; write {{grid: {list(value)!r}}} to try each" if isinstance(value, list | tuple) else ""
    raise FaultsError("domain", [f"must be a single value or a domain, but got {value!r}{hint}"])


def values_of(entry: Domain | Scalar) -> tuple[Scalar, ...]:
    """The values an entry is checked with: all of a finite domain, both ends of a range, or the fixed value."""
    if isinstance(entry, Grid | Choice):
        return entry.values
    if isinstance(entry, Uniform | LogUniform | RandInt):
        return (entry.low, entry.high)
    return (entry,)


def is_searched(entry: Domain | Scalar) -> bool:
    """Whether an entry leaves anything to choose."""
    return count_values(entry) != 1


def count_values(entry: Domain | Scalar) -> int | None:
    """How many values an entry may take; None for any number in a range."""
    if isinstance(entry, Uniform | LogUniform):
        return 1 if entry.low == entry.high else None
    return entry.high - entry.low + 1 if isinstance(entry, RandInt) else len(values_of(entry))


def same(value: Scalar, other: Scalar) -> bool:
    """Whether they are one value of a hyperparameter: 1 and 1.0 are, 1 and true are not."""
    return value == other and isinstance(value, bool) == isinstance(other, bool)


def _distinct(name: str, values: Any) -> tuple[Scalar, ...]:
    if isinstance(values, str) or not isinstance(values, list | tuple):
        raise FaultsError(name, [f"{name}: must be a list of values, but got {values!r}"])
    if not values:
        raise FaultsError(name, [f"{name}: must hold at least one value, but got an empty list"])
    if bad := [v for v in values if not _is_single(v)]:
        raise FaultsError(name, [f"{name}: must hold single values, but got {bad[0]!r}"])
    # True == 1 in Python; as hyperparameters they are different values.
    keys = [(isinstance(v, bool), v) for v in values]
    if len(set(keys)) < len(keys):
        twice = next(v for i, v in enumerate(values) if keys[i] in keys[:i])
        raise FaultsError(name, [f"{name}: every value must stand once, but {twice!r} stands twice"])
    return tuple(values)


def _is_single(value: Any) -> bool:
    """Whether it is one value of a kind that every part of a sweep's road can carry: JSON, Parquet and C integers."""
    if isinstance(value, int):
        return -(2**63) <= value < 2**63
    return value is None or isinstance(value, str | float)


def _check_range(name: str, low: Any, high: Any) -> None:
    ends = (low, high)
    numbers = all(_is_single(v) and isinstance(v, int | float) and not isinstance(v, bool) for v in ends)
    if not numbers or not all(map(math.isfinite, (*ends, high - low))):
        raise FaultsError(name, [f"{name}: both ends must be numbers, but got [{low!r}, {high!r}]"])
    if low > high:
        raise FaultsError(name, [f"{name}: low <= high must hold, but got [{low!r}, {high!r}]"])
