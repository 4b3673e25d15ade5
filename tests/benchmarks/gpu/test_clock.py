"""Time divided among parts, by a clock that is set by hand."""

from __future__ import annotations

import pytest

from benchmarks.gpu.clock import Budget, Deadline
from benchmarks.gpu.command import PARTS
from benchmarks.gpu.sizes import sizes


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def test_what_a_part_leaves_over_goes_to_those_after_it_and_what_it_overruns_is_taken_from_them():
    clock = Clock()
    budget = Budget(100, {"a": 1, "b": 1, "c": 2}, now=clock)
    assert budget.begin("a").left() == 25
    clock.now = 10
    second = budget.begin("b")
    assert second.left() == 30  # a third of the 90 that are left
    clock.now = 60
    assert second.has_passed()
    assert budget.begin("c").left() == 40  # all of the rest, and no more


def test_the_last_part_ends_with_the_whole_run_however_late_it_begins():
    clock = Clock()
    budget = Budget(100, {"a": 1, "b": 1}, now=clock)
    budget.begin("a")
    clock.now = 130
    late = budget.begin("b")
    assert late.has_passed()
    assert late.left() == 0
    assert not late.allows(0)


def test_the_time_before_the_budget_was_made_counts():
    clock = Clock()
    clock.now = 30
    assert Budget(100, {"a": 1}, now=clock, began_at=10).whole.left() == 80


def test_a_deadline_allows_what_ends_before_it_and_can_be_divided():
    clock = Clock()
    deadline = Deadline(10, clock)
    assert deadline.allows(9.9)
    assert not deadline.allows(10)
    assert deadline.within(0.5).left() == 5


@pytest.mark.parametrize(
    ("device", "quick", "promised_s"), [("cuda", False, 420), ("cuda", True, 120), ("cpu", True, 180)]
)
def test_a_run_plans_with_a_little_less_than_was_promised(device, quick, promised_s):
    planned = sizes(device=device, quick=quick).limit_s
    assert 0.8 * promised_s < planned <= promised_s - 15


def test_every_part_has_a_weight():
    assert all(weight > 0 for _, weight in PARTS.values())
