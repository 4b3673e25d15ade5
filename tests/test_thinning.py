"""Thinned tests keep cases that stand for all."""

from __future__ import annotations

import itertools

import pytest

from tests.thinning import covering, spread


def test_every_value_is_in_a_case_that_is_kept_and_the_product_is_not() -> None:
    cases = [frozenset({("method", i), ("rate", j)}) for i, j in itertools.product(range(6), range(3))]
    kept = [cases[place] for place in covering(cases)]
    assert frozenset().union(*kept) == frozenset().union(*cases)
    assert len(kept) == 6
    for rate in range(3):  # none is for all but the first method
        assert sum(("rate", rate) in case for case in kept) == 2


@pytest.mark.parametrize(("number", "kept", "places"), [(9, 3, {0, 4, 8}), (2, 5, {0, 1}), (4, 1, {0}), (0, 2, set())])
def test_kept_cases_are_spread_over_the_list(number: int, kept: int, places: set[int]) -> None:
    assert spread(number, kept) == places
