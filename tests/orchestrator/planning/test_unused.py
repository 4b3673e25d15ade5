"""Hyperparameters that a method does not use: they multiply no trials, identify none and stand in no record."""

from __future__ import annotations

from typing import Any

import pytest

from orchestrator.planning.plan import plan_sweep, plan_table, planned_from_table
from orchestrator.record import make_record
from orchestrator.spec.spec import SweepSpecError
from orchestrator.store.rows import records_from_table, table_from_records
from orchestrator.tracking.run_fields import TrialFacts
from tests.factories import outcome
from trainables.config import HYPERPARAMETERS
from trainables.methods import unused_hyperparameters

Values = dict[str, Any]
UNUSED = unused_hyperparameters("linear_probe")


@pytest.fixture
def shared(values: Values) -> Values:
    """A sweep whose methods share four points, all of which the probe takes for one."""
    values["space"] = {"max_length": 16, "learning_rate": {"grid": [1e-3, 1e-2]}, "num_epochs": {"grid": [2, 5]}}
    values["methods"] = ["linear_probe", "layernorm"]
    return values


def test_a_space_that_all_methods_share_gives_one_configuration(shared: Values) -> None:
    plan = plan_sweep(shared)
    probes = [trial for trial in plan.trials if trial.config.method == "linear_probe"]
    assert (len(plan.trials), plan.configurations) == (10, 5)
    assert [trial.config.seed for trial in probes] == [0, 1]
    assert {trial.config.num_epochs for trial in probes} == {1}
    assert {trial.num_steps for trial in probes} == {1}
    assert plan.varied == {"linear_probe": (), "layernorm": ("num_epochs", "learning_rate")}


def test_what_is_used_still_multiplies(shared: Values) -> None:
    shared["space"] |= {"max_length": {"grid": [8, 16]}}
    shared["methods"] = [{"linear_probe": {"l2": {"grid": [1e-2, 1.0]}}}]
    assert plan_sweep(shared).configurations == 4


def test_other_values_of_what_is_unused_are_the_same_trials(shared: Values) -> None:
    shared["methods"] = ["linear_probe"]
    ids = [trial.trial_id for trial in plan_sweep(shared).trials]
    others = {"learning_rate": 0.5, "num_epochs": 9, "batch_size": 3, "dropout": 0.7, "weight_decay": 1.0}
    assert [trial.trial_id for trial in plan_sweep({**shared, "space": {"max_length": 16, **others}}).trials] == ids
    assert [trial.trial_id for trial in plan_sweep({**shared, "space": {"max_length": 8}}).trials] != ids


@pytest.mark.parametrize("algorithm", ["random", "tpe"])
def test_a_search_does_not_look_where_nothing_changes(shared: Values, algorithm: str) -> None:
    shared["space"]["learning_rate"] = {"loguniform": [1e-4, 1e-2]}
    plan = plan_sweep({**shared, "search": {"algorithm": algorithm, "num_samples": 6}})
    assert plan.configurations == 7
    probe, layernorm = plan.task_methods
    assert probe.space.keys() == {"max_length"}
    assert (probe.most_epochs, layernorm.most_epochs) == (1, 5)


def test_it_may_not_be_given_to_the_method_itself(shared: Values) -> None:
    shared["methods"] = [{"linear_probe": {"learning_rate": 1e-3, "num_epochs": 0}}]
    with pytest.raises(SweepSpecError) as refusal:
        plan_sweep(shared)
    rule = "must not be given, since the method does not use it (of a `space` that all share, it is left out)"
    assert refusal.value.faults == (f"linear_probe.learning_rate: {rule}", f"linear_probe.num_epochs: {rule}")


def test_it_is_null_in_the_plan_in_records_and_in_no_run_of_the_tracker(shared: Values) -> None:
    plan = plan_sweep(shared)
    table = plan_table(plan)
    assert planned_from_table(table) == list(plan.trials)
    for row, trial in zip(table.to_pylist(), plan.trials, strict=True):
        is_probe = trial.config.method == "linear_probe"
        assert {*trial.unused} == ({*UNUSED} - {"dropout"} if is_probe else set())
        nulls = {name for name in HYPERPARAMETERS if row[name] is None}
        assert nulls == ({*UNUSED} if is_probe else {"dropout"})
        record = make_record("any", trial, outcome())
        assert {name: record.hyperparameters[name] for name in HYPERPARAMETERS} == {n: row[n] for n in HYPERPARAMETERS}
        # Whatever else is null is an option.
        assert records_from_table(table_from_records([record]))[0].hyperparameters.keys() >= HYPERPARAMETERS.keys()
        assert not nulls & TrialFacts.of_plan(trial).params().keys()
        assert TrialFacts.of_plan(trial).params() == TrialFacts.of_record(record).params()
