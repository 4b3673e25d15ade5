"""Rules of early stopping: the forms that are understood, and every fault of one at once."""

from __future__ import annotations

import json
from typing import Any

import pytest

from orchestrator.spec.early_stopping import NONE, RULES, Asha, Hyperband, Median, parse_rule, rule_to_json
from trainables.faults import FaultsError


@pytest.mark.parametrize(
    ("value", "rule"),
    [
        (None, NONE),
        ("none", NONE),
        ("asha", Asha()),
        ({"asha": None}, Asha()),
        ({"asha": {"grace_period": 2, "reduction_factor": 4.0}}, Asha(grace_period=2, reduction_factor=4)),
        ({"asha": {"max_epochs": 9}}, Asha(max_epochs=9)),
        ("hyperband", Hyperband()),
        ({"hyperband": {"brackets": 2, "grace_period": 2}}, Hyperband(brackets=2, grace_period=2)),
        ("median", Median()),
        ({"median": {"min_trials": 5}}, Median(min_trials=5)),
        (Asha(grace_period=3), Asha(grace_period=3)),
    ],
)
def test_a_rule_is_read_in_each_of_its_forms(value: Any, rule: Any) -> None:
    assert parse_rule(value) == rule


@pytest.mark.parametrize("name", RULES)
def test_a_rule_survives_the_road_through_json(name: str) -> None:
    rule = parse_rule(name)
    assert parse_rule(json.loads(json.dumps(rule_to_json(rule)))) == rule
    assert rule_to_json(NONE) == NONE


@pytest.mark.parametrize(
    ("value", "faults"),
    [
        (
            "asah",
            [f"unknown rule of early stopping 'asah'; did you mean 'asha'? Known: {', '.join(sorted([*RULES, NONE]))}"],
        ),
        (True, [f"must be none, the name of a rule ({', '.join(RULES)}), or a mapping of one"]),
        ({"asha": {}, "median": {}}, ["must be none, the name of a rule (asha, hyperband, median"]),
        ({}, ["must be none"]),
        ({"asha": 3}, ["asha: must be a mapping of settings, but got 3"]),
        (
            {"asha": {"grace_period": 0, "reduction_factor": 1, "max_epochs": True, "max_t": 3}},
            [
                "unknown setting of asha 'max_t'. Known: grace_period, max_epochs, reduction_factor",
                "asha.grace_period: must be a whole number >= 1, but got 0",
                "asha.reduction_factor: must be a number > 1, but got 1",
                "asha.max_epochs: must be a whole number >= 1, but got True",
            ],
        ),
        ({"asha": {"grace_period": 4, "max_epochs": 3}}, ["asha.max_epochs: must be at least the grace period of 4"]),
        (
            {"hyperband": {"brackets": 0, "reduction_factor": "x"}},
            ["hyperband.reduction_factor: must be a number > 1", "hyperband.brackets: must be a whole number >= 1"],
        ),
        ({"median": {"grace_period": 1.5, "min_trials": "x"}}, ["median.grace_period: must be", "median.min_trials"]),
        (Median(min_trials=0), ["median.min_trials: must be a whole number >= 1, but got 0"]),
    ],
)
def test_all_faults_of_a_rule_come_at_once(value: Any, faults: list[str]) -> None:
    with pytest.raises(FaultsError) as refusal:
        parse_rule(value)
    assert len(refusal.value.faults) == len(faults)
    for found, expected in zip(refusal.value.faults, faults, strict=True):
        assert expected in found
