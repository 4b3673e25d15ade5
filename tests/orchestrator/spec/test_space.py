"""Domains: what they accept, what they draw, and what they say of a mistake."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.spec.space import (
    DOMAINS,
    Choice,
    Grid,
    LogUniform,
    RandInt,
    Uniform,
    count_values,
    is_searched,
    parse_domain,
    same,
    values_of,
)
from trainables.faults import FaultsError

single = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5)
anything = st.recursive(
    single,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from([*DOMAINS, "grids", ""]) | st.integers(), inner, max_size=2)
    ),
    max_leaves=6,
)


def fault_of(value: Any) -> str:
    with pytest.raises(FaultsError) as refusal:
        parse_domain(value)
    (fault,) = refusal.value.faults
    return fault


@given(anything)
def test_anything_is_an_entry_that_survives_json_or_a_fault(value: Any) -> None:
    try:
        entry = parse_domain(value)
    except FaultsError:
        return  # any other error fails the test
    plain = entry.to_json() if isinstance(entry, tuple(DOMAINS.values())) else entry
    assert repr(parse_domain(plain)) == repr(entry)  # nan is not equal to itself


@pytest.mark.parametrize(
    ("value", "rule"),
    [
        ({"grid": []}, "grid: must hold at least one value, but got an empty list"),
        ({"grid": [2, 8, 2]}, "grid: every value must stand once, but 2 stands twice"),
        ({"grid": [1, 1.0]}, "stands twice"),
        ({"grid": 3}, "grid: must be a list of values, but got 3"),
        ({"grid": "abc"}, "grid: must be a list of values, but got 'abc'"),
        ({"choice": [[1], 2]}, "choice: must hold single values, but got [1]"),
        ({"uniform": [1, 0]}, "uniform: low <= high must hold, but got [1, 0]"),
        ({"uniform": [0]}, "uniform: must be a pair [low, high], but got [0]"),
        ({"uniform": ["a", 1]}, "uniform: both ends must be numbers, but got ['a', 1]"),
        ({"uniform": [0, float("inf")]}, "both ends must be numbers"),
        ({"uniform": [False, True]}, "both ends must be numbers"),
        ({"loguniform": [0, 1]}, "loguniform: low must be > 0, but got 0"),
        ({"randint": [1, 2.5]}, "randint: both ends must be whole numbers, but got [1, 2.5]"),
        ({"gird": [1]}, "unknown domain 'gird'; did you mean 'grid'? Known: choice, grid,"),
        ({"grid": [1], "choice": [2]}, "a domain must have exactly one key"),
        ([2, 8], "write {grid: [2, 8]} to try each"),
    ],
)
def test_a_faulty_domain_is_refused_with_the_rule_and_what_came(value: Any, rule: str) -> None:
    assert rule in fault_of(value)


def test_true_and_one_are_different_values() -> None:
    assert Grid([True, 1]).values == (True, 1)


@given(st.integers(0, 2**32), st.floats(1e-8, 1e8), st.floats(1, 1e6), st.integers(-50, 50), st.integers(0, 50))
def test_samples_lie_in_their_domain(seed: int, low: float, factor: float, start: int, width: int) -> None:
    generator = np.random.default_rng(seed)
    assert low <= Uniform(low, low * factor).sample(generator) <= low * factor
    assert low <= LogUniform(low, low * factor).sample(generator) <= low * factor
    assert start <= RandInt(start, start + width).sample(generator) <= start + width
    assert Choice(["a", "b"]).sample(generator) in ("a", "b")
    assert Grid([3]).sample(generator) == 3


def test_a_loguniform_spreads_the_logarithm_evenly_and_a_randint_reaches_both_ends() -> None:
    generator = np.random.default_rng(0)
    drawn = [math.log10(LogUniform(1e-5, 1e-1).sample(generator)) for _ in range(2000)]
    assert np.histogram(drawn, bins=4, range=(-5, -1))[0].min() > 400
    assert {RandInt(1, 3).sample(generator) for _ in range(100)} == {1, 2, 3}


def test_a_range_is_checked_by_its_ends() -> None:
    assert values_of(Uniform(0.1, 0.2)) == (0.1, 0.2)
    assert values_of(Grid([2, 4])) == (2, 4)
    assert values_of(7) == (7,)


@pytest.mark.parametrize(
    ("entry", "count"),
    [
        (3, 1),
        (None, 1),
        (Grid([7]), 1),
        (Choice([1, True, None]), 3),
        (RandInt(2, 2), 1),
        (RandInt(2, 5), 4),
        (Uniform(1, 1), 1),
        (Uniform(1, 2), None),
        (LogUniform(1, 2), None),
    ],
)
def test_an_entry_is_searched_where_it_has_more_than_one_value(entry: Any, count: int | None) -> None:
    assert count_values(entry) == count
    assert is_searched(entry) == (count != 1)


def test_one_and_true_are_different_values_and_one_and_one_point_nought_are_not() -> None:
    assert same(1, 1.0)
    assert same(None, None)
    assert not same(1, True)
    assert not same(0, None)
