from __future__ import annotations

import numpy as np
import pytest

from orchestrator.analysis.statistics.selection import optimism_of_the_winner, selection_stability


def test_the_gap_of_the_winner_is_split_into_choosing_and_the_splits() -> None:
    found = optimism_of_the_winner([0.8, 0.9, 0.7], [0.78, 0.84, 0.72])
    assert (found.validation, found.test, found.num_tried) == (0.9, 0.84, 3)
    assert found.gap == pytest.approx(0.06)
    assert found.average_gap == pytest.approx(0.02)
    assert found.optimism == pytest.approx(0.04)


@pytest.mark.parametrize(("num_tried", "expected"), [(1, 0.0), (10, 1.54), (50, 2.25)])
def test_the_winner_of_more_promises_more(num_tried: int, expected: float) -> None:
    """Of equals with normal noise the winner is too high by the expected maximum of so many normal numbers."""
    rng = np.random.default_rng(0)
    found = [optimism_of_the_winner(*rng.normal(size=(2, num_tried))).optimism for _ in range(4000)]
    assert np.mean(found) == pytest.approx(expected, abs=0.06)


def test_a_clear_winner_is_always_chosen_and_equals_share() -> None:
    rng = np.random.default_rng(0)
    clear = selection_stability([[0.1, 0.2, 0.15], [0.9, 0.95, 0.92]], rng=rng, num_resamples=100)
    assert clear.tolist() == [0.0, 1.0]
    equal = selection_stability([[0.1, 0.2, 0.3], [0.1, 0.2, 0.3]], rng=rng, num_resamples=2000)
    assert equal.sum() == pytest.approx(1)
    assert equal[1] == pytest.approx(0.5, abs=0.1)


def test_equal_generators_give_equal_shares_and_any_rule_will_do() -> None:
    scores = np.random.default_rng(1).normal(0.9, 0.01, (5, 3))

    def ask(seed: int) -> list[float]:
        return selection_stability(scores, rng=np.random.default_rng(seed), num_resamples=300).tolist()  # type: ignore[no-any-return]

    assert ask(0) == ask(0) != ask(1)
    lowest = selection_stability(
        scores, rng=np.random.default_rng(0), choose=lambda drawn: drawn.mean(axis=2).argmin(axis=1), num_resamples=300
    )
    assert lowest.argmax() == scores.mean(axis=1).argmin()
