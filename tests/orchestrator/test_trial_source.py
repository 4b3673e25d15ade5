"""Trials that were all planned before the first began."""

from __future__ import annotations

from typing import Any

from orchestrator.planning.plan import plan_sweep
from orchestrator.trial_source import FixedTrials


def test_every_trial_is_handed_out_once_in_the_order_of_the_plan(values: dict[str, Any]) -> None:
    trials = plan_sweep(values).trials
    source = FixedTrials(trials)
    assert source.most == len(trials)
    handed = []
    while not source.is_exhausted():
        handed.append(source.next())
    assert tuple(handed) == trials
    assert source.next() is None
    assert source.most == 0


def test_it_knows_the_longest_trial_of_each_task(values: dict[str, Any]) -> None:
    values["methods"] = [{"layernorm": {"num_epochs": {"grid": [3, 7]}}}, {"adapter": {"adapter_size": 1}}]
    plan = plan_sweep(values)
    assert FixedTrials(plan.trials).longest == {plan.trials[0].config.task: 7}
