"""The question of answer.py: its configurations, and how far from the best an answer is."""

from __future__ import annotations

import pytest

from benchmarks import NotMeasuredError, answer


def test_the_24_configurations_are_different_and_the_first_few_far_apart() -> None:
    every = answer.configurations()
    assert len(every) == 24
    assert len(set(every)) == 24
    assert len({trial.learning_rate for trial in every[:6]}) == 6
    assert len({trial.adapter_size for trial in every[:4]}) == 4
    assert answer.configurations(5) == every[:5]


def test_regret_is_what_the_best_scores_more_than_the_chosen() -> None:
    complete = {(8, 1e-3): 0.9, (64, 1e-3): 0.95, (8, 1e-2): 0.2}
    assert answer.regret((8, 1e-3), complete) == pytest.approx(0.05)
    assert answer.regret((64, 1e-3), complete) == 0


@pytest.mark.parametrize("text", ["1", "25", "many", "-3"])
def test_a_number_of_configurations_that_cannot_be_is_refused(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ADAPTUNE_BENCH_TASK", "any")
    monkeypatch.setenv("ADAPTUNE_BENCH_TRIALS", text)
    with pytest.raises(NotMeasuredError, match="must be a whole number from 2 to 24"):
        answer.measure()
