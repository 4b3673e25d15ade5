from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.analysis.statistics.pareto import pareto_front

settings = st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=1, max_size=12)


@given(settings)
def test_the_front_is_what_nothing_dominates(pairs: list[tuple[int, int]]) -> None:
    def is_dominated(cost: int, score: int) -> bool:
        return any(c <= cost and s >= score and (c, s) != (cost, score) for c, s in pairs)

    found = pareto_front([cost for cost, _ in pairs], [score for _, score in pairs])
    assert found.tolist() == [not is_dominated(*pair) for pair in pairs]


def test_sides_of_another_length_are_refused() -> None:
    with pytest.raises(ValueError, match="as many settings, but got 1 and 2"):
        pareto_front([1], [1, 2])
