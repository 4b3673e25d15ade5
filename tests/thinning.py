"""Which cases of a parametrised test run every day: a few that stand for all, the others are for `make test-thorough`.

`@pytest.mark.thinned` keeps as few cases as show each value of each parameter once; `@pytest.mark.thinned(3)` keeps
three, spread over the whole list. All others get the marker `thorough`.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence

import pytest


def mark(items: Sequence[pytest.Item]) -> None:
    """Give the marker `thorough` to the cases that a thinned test does not keep."""
    groups: dict[tuple[str, str], list[pytest.Item]] = defaultdict(list)
    for item in items:
        if item.get_closest_marker("thinned") and hasattr(item, "callspec"):
            assert item.parent is not None
            groups[item.parent.nodeid, item.name.partition("[")[0]].append(item)
    for cases in groups.values():
        marker = cases[0].get_closest_marker("thinned")
        assert marker is not None
        kept = spread(len(cases), *marker.args) if marker.args else covering([_values(case) for case in cases])
        for place, case in enumerate(cases):
            if place not in kept:
                case.add_marker("thorough")


def spread(number: int, kept: int) -> set[int]:
    """Places of `kept` of a number of cases: the first, the last and others at equal distances."""
    if kept >= number:
        return set(range(number))
    return {round(place * (number - 1) / max(1, kept - 1)) for place in range(kept)}


def covering(cases: Sequence[frozenset[tuple[str, int]]]) -> set[int]:
    """Places of cases that together hold every value.

    Each is chosen because it holds the most values that were missing and, of several, those that the fewest had.
    """
    missing = frozenset().union(*cases)
    uses: Counter[tuple[str, int]] = Counter()
    kept: set[int] = set()

    def worth(place: int) -> tuple[int, int, int]:
        return len(cases[place] & missing), -sum(uses[value] for value in cases[place]), -place

    while missing:
        best = max(range(len(cases)), key=worth)
        kept.add(best)
        missing -= cases[best]
        uses.update(cases[best])
    return kept


def _values(case: pytest.Item) -> frozenset[tuple[str, int]]:
    """A case's parameters; a value, which may have no hash, is the same object in all its cases."""
    params: dict[str, object] = case.callspec.params  # type: ignore[attr-defined]
    return frozenset((name, id(value)) for name, value in params.items())
