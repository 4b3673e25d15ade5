"""How many epochs early stopping leaves, before any trial has a score."""

from __future__ import annotations

import numpy as np
import pytest

from orchestrator.estimate.expected_epochs import expected_epochs, has_expectation
from orchestrator.spec.early_stopping import NONE, Asha, Hyperband, Median, Rule


def mean_epochs(rule: Rule | str, epochs: list[int], draws: int = 20) -> float:
    rng = np.random.default_rng(0)
    return float(np.mean([sum(expected_epochs(rule, epochs, max(epochs), rng)) for _ in range(draws)]))


def test_without_a_rule_or_with_one_that_cannot_tell_all_train_to_their_end() -> None:
    assert mean_epochs(NONE, [9, 3]) == 12
    assert mean_epochs(Median(), [9, 3]) == 12
    assert [has_expectation(rule) for rule in (NONE, Median(), Asha(), Hyperband())] == [False, False, True, True]


def test_halving_leaves_a_little_more_than_a_third_at_each_rung() -> None:
    """Of many trials of 9 epochs: all train 1, a third 2 more, a ninth the 6 that are left."""
    assert mean_epochs(Asha(), [9] * 900, draws=3) / 900 == pytest.approx(2 / 9 + 1 + 2 / 3 + 6 / 9, abs=2 / 9)


def test_the_first_trials_are_stopped_less_often() -> None:
    """One comes first and goes on; each next one is judged by the few before it."""
    assert mean_epochs(Asha(), [9], draws=3) == 9
    assert 1 + 2 / 3 + 6 / 9 < mean_epochs(Asha(), [9] * 6) / 6 < 9


def test_nobody_is_stopped_within_the_grace_period_nor_trains_longer_than_planned() -> None:
    rng = np.random.default_rng(1)
    planned = [1, 2, 5, 9, 9, 9, 12] * 5
    for rule in (Asha(grace_period=4), Hyperband(grace_period=2), Asha(max_epochs=3), Asha(grace_period=20)):
        trained = expected_epochs(rule, planned, 12, rng)
        assert all(
            min(most, rule.grace_period) <= epochs <= most for epochs, most in zip(trained, planned, strict=True)
        )


def test_brackets_that_begin_later_train_longer() -> None:
    assert mean_epochs(Hyperband(), [27] * 90, draws=5) > mean_epochs(Asha(), [27] * 90, draws=5)


def test_equal_generators_give_equal_epochs() -> None:
    first, second = (expected_epochs(Asha(), [9] * 20, 9, np.random.default_rng(3)) for _ in range(2))
    assert first == second
