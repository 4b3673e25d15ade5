from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.analysis.statistics import aggregates

finite = st.floats(-1e6, 1e6, allow_nan=False)
quantiles = st.lists(st.floats(0, 1), min_size=1, max_size=5)


@given(st.lists(finite, min_size=1, max_size=12), quantiles)
def test_percentiles_interpolate_linearly_between_order_statistics(scores: list[float], levels: list[float]) -> None:
    ordered = sorted(scores)

    def by_hand(level: float) -> float:
        rank = level * (len(ordered) - 1)
        below = min(int(rank), len(ordered) - 1)
        above = min(below + 1, len(ordered) - 1)
        return ordered[below] + (rank - below) * (ordered[above] - ordered[below])

    assert aggregates.percentiles(scores, levels) == pytest.approx([by_hand(q) for q in levels], rel=1e-9, abs=1e-6)


def test_a_quantile_outside_zero_and_one_is_refused() -> None:
    with pytest.raises(ValueError, match="range"):
        aggregates.percentiles([0.1, 0.2], [1.5])
