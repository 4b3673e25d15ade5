"""Trials that were all planned before the first began."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from orchestrator.planning.plan import PlannedTrial, plan_sweep
from orchestrator.scheduling.remaining import Remaining
from orchestrator.trial_source import FixedTrials
from tests.factories import planned_trial


def test_every_trial_is_handed_out_once_in_the_order_of_the_plan(values: dict[str, Any]) -> None:
    trials = plan_sweep(values).trials
    source = FixedTrials(trials)
    assert source.most == len(trials)
    handed: list[PlannedTrial | None] = []
    while not source.is_exhausted():
        assert Counter(source.by_key()) == left_of(trials[len(handed) :])
        handed.append(source.next())
    assert tuple(handed) == trials
    assert source.next() is None
    assert source.most == sum(source.by_key().values()) == 0


def test_it_knows_the_longest_trial_of_each_task(values: dict[str, Any]) -> None:
    values["methods"] = [{"layernorm": {"num_epochs": {"grid": [3, 7]}}}, {"adapter": {"adapter_size": 1}}]
    plan = plan_sweep(values)
    assert FixedTrials(plan.trials).longest == {plan.trials[0].config.task: 7}


def left_of(trials: Sequence[PlannedTrial]) -> Counter[str | None]:
    return Counter(trial.pack_key for trial in trials)


def test_what_remains_is_under_way_or_yet_to_come() -> None:
    alone, first, second = (planned_trial(name, pack_key=key) for name, key in (("a", None), ("b", "k"), ("c", "k")))
    source = FixedTrials([alone, first, second])
    remaining = Remaining(source)
    under_way: list[PlannedTrial] = []
    remaining.under_way = lambda: under_way
    assert not remaining.has_some_for_gpus()
    assert not remaining.has_some_for_cpus()
    for _ in range(2):
        trial = source.next()
        assert trial is not None
        under_way.append(trial)
        assert remaining.by_key() == {None: 1, "k": 2}
    assert remaining.has_some_for_gpus()
    del under_way[0]
    assert remaining.by_key() == Counter({"k": 2})
