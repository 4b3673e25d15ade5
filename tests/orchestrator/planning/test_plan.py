"""Planning: every trial once, the table they are stored as, and every fault at once."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from orchestrator.planning.plan import (
    SweepPlan,
    plan_sweep,
    plan_table,
    planned_from_table,
    planned_hyperparameters,
    remaining,
    trials_table,
)
from orchestrator.spec.spec import SweepSpecError
from trainables.config import HYPERPARAMETERS, OUTCOME_VERSION, TrialConfig
from trainables.faults import FaultsError

Values = dict[str, Any]


def faults_of(values: Any) -> tuple[str, ...]:
    with pytest.raises(SweepSpecError) as refusal:
        plan_sweep(values)
    return refusal.value.faults


@pytest.fixture
def adaptive(values: Values) -> Values:
    """A sweep of two task-method pairs, one without end and one of three points."""
    values["space"] = {"max_length": 16, "learning_rate": {"loguniform": [1e-4, 1e-2]}}
    finite = {"learning_rate": {"grid": [0.1, 0.2, 0.3]}, "num_epochs": 1}
    values["methods"] = [{"adapter": {"adapter_size": {"randint": [1, 8]}}}, {"layernorm": finite}]
    values["search"] = {"algorithm": "tpe", "num_samples": 5}
    return values


class TestPlan:
    def test_every_trial_is_planned_once_with_what_is_known_of_it(self, values: Values) -> None:
        plan = plan_sweep(values)
        assert (len(plan.trials), plan.configurations, plan.missing) == (6, 3, ())
        assert len({trial.trial_id for trial in plan.trials}) == 6
        assert [trial.config.seed for trial in plan.trials] == [0, 1] * 3
        first = plan.trials[0]
        assert (first.task, first.num_steps) == ("opinion", 2)
        assert first.config == TrialConfig(
            task=values["tasks"][0],
            backbone=values["backbone"],
            method="adapter",
            method_options={**first.config.method_options, "adapter_size": 1},
            num_epochs=2,
            max_length=16,
        )
        # 4 adapters of 2DA + D + A, 5 LayerNorms of 2D, a head of (D + 1) C; D = 8, A = 1, C = 2
        assert (first.trained_params_without_head, first.trained_params) == (4 * 25 + 5 * 16, 180 + 18)
        sizes = {"rows", "backbone_params", "encoder_params"}
        assert set(first.provenance) == {"data_fingerprint", "backbone_fingerprint", *sizes}
        assert int(first.provenance["encoder_params"]) < int(first.provenance["backbone_params"])
        assert " train, " in first.provenance["rows"]

    def test_the_default_length_is_what_the_backbone_can_read(self, values: Values) -> None:
        del values["space"]["max_length"]
        assert {trial.config.max_length for trial in plan_sweep(values).trials} == {16}

    def test_what_is_left_is_the_plan_without_the_finished(self, values: Values) -> None:
        plan = plan_sweep(values)
        ids = [trial.trial_id for trial in plan.trials]
        assert remaining(plan, []) == plan.trials
        assert remaining(plan, [ids[0], ids[3], "of another sweep"]) == tuple(
            plan.trials[index] for index in (1, 2, 4, 5)
        )
        assert remaining(plan, ids) == ()

    def test_entries_of_methods_that_overlap_plan_a_trial_once(self, values: Values) -> None:
        values["methods"] = [{"adapter": {"adapter_size": {"grid": sizes}}} for sizes in ([1, 2], [2, 4])]
        assert plan_sweep(values).configurations == 3
        assert len(plan_sweep(values).trials) == 6

    def test_trials_that_an_engine_can_train_together_have_the_same_pack_key(self, values: Values) -> None:
        methods = [
            {"adapter": {"adapter_size": {"grid": [1, 4]}, "learning_rate": {"grid": [1e-3, 1e-2]}}},
            "layernorm",
            "full_finetuning",
        ]
        trials = plan_sweep({**values, "methods": methods}).trials
        keys = {
            (trial.config.method, trial.config.method_options.get("adapter_size"), trial.pack_key) for trial in trials
        }
        assert len(keys) == 4
        packs = [key for *_, key in keys]
        assert packs.count(None) == 1  # full fine-tuning trains alone
        assert len(set(packs)) == 4

    def test_a_random_search_keeps_its_trials_when_the_sweep_is_widened(
        self, values: Values, write_task: Callable[..., Path]
    ) -> None:
        values |= {"search": {"algorithm": "random", "num_samples": 4}, "methods": ["layernorm"]}
        values["space"] = {"learning_rate": {"loguniform": [1e-4, 1e-2]}, "max_length": 16}
        wider = {
            **values,
            "tasks": [str(write_task("another", rows=40)), *values["tasks"]],
            "methods": [{"adapter": {"adapter_size": {"randint": [1, 8]}}}, "layernorm"],
            "search": {"algorithm": "random", "num_samples": 6},
        }
        narrow = {trial.trial_id for trial in plan_sweep(values).trials}
        assert narrow == {trial.trial_id for trial in plan_sweep(values).trials}
        assert narrow < {trial.trial_id for trial in plan_sweep(wider).trials}


class TestAdaptive:
    def test_its_trials_are_not_known_but_how_many_there_are_at_most(self, adaptive: Values) -> None:
        plan = plan_sweep(adaptive)
        assert plan.is_adaptive
        assert plan.trials == ()
        # Of the second task-method pair's space there are three points; of the first's, as many as asked for.
        assert (plan.configurations, plan.most_trials) == (5 + 3, 16)
        assert [task_method.name for task_method in plan.task_methods] == ["opinion:adapter", "opinion:layernorm"]
        assert not plan_sweep({**adaptive, "search": {"algorithm": "random", "num_samples": 5}}).is_adaptive

    def test_a_sample_stands_for_its_trials_as_random_search_would_draw_them(self, adaptive: Values) -> None:
        sample = plan_sweep(adaptive).sample_trials()
        random = plan_sweep({**adaptive, "search": {"algorithm": "random", "num_samples": 5}}).trials
        assert {trial.trial_id for trial in sample} == {trial.trial_id for trial in random}
        assert [trial.config.method for trial in sample[:4]] == ["adapter"] * 2 + ["layernorm"] * 2
        assert plan_sweep(adaptive).sample_trials() == sample

    def test_other_plans_are_their_own_sample(self, values: Values) -> None:
        plan = plan_sweep(values)
        assert plan.sample_trials() == plan.trials
        assert (plan.most_trials, plan.configurations) == (6, 3)

    def test_the_ends_of_its_ranges_and_what_it_might_draw_are_checked_beforehand(self, adaptive: Values) -> None:
        adaptive["space"]["learning_rate"] = {"uniform": [-1, 0.1]}
        adaptive["methods"] = [{"adapter": {"adapter_size": {"randint": [1, 9]}}}]
        rate, size = faults_of(adaptive)
        assert rate.startswith("space.learning_rate: must be a number > 0, but got -1")
        assert size.startswith("adapter.adapter_size: must be in [1, 8]")
        adaptive["space"] = {"num_epochs": {"uniform": [1, 3]}}
        adaptive["methods"] = ["layernorm"]
        assert all(fault.startswith("num_epochs: must be a whole number") for fault in faults_of(adaptive))

    def test_cma_es_may_be_written_with_its_dash(self, adaptive: Values) -> None:
        adaptive["search"]["algorithm"] = "cma-es"
        assert plan_sweep(adaptive).spec.search.algorithm == "cmaes"


class TestTable:
    def test_it_has_a_row_a_trial_and_gives_every_trial_back(self, values: Values) -> None:
        values["methods"].append("full_finetuning")  # trains alone
        plan = plan_sweep(values)
        table = plan_table(plan)
        assert table.column("trial_id").to_pylist() == [trial.trial_id for trial in plan.trials]
        assert table.column("adapter_size").to_pylist() == [1, 1, 4, 4, *[None] * 4]
        assert set(table.column("outcome_version").to_pylist()) == {OUTCOME_VERSION}
        assert planned_from_table(table) == list(plan.trials)
        assert table.equals(trials_table(plan.spec.name, plan.trials))

    def test_a_table_of_older_code_says_less(self, values: Values) -> None:
        plan = plan_sweep(values)
        table = plan_table(plan).drop_columns(["pack_key", "outcome_version", "provenance", "num_steps"])
        assert planned_from_table(table) == [
            dataclasses.replace(trial, pack_key=None, provenance={}, num_steps=None) for trial in plan.trials
        ]

    def test_an_empty_plan_has_a_table_with_the_same_types(self, adaptive: Values) -> None:
        plan = plan_sweep(adaptive)
        empty = plan_table(plan)
        assert (empty.num_rows, planned_from_table(empty)) == (0, [])
        rows = trials_table("s", plan.sample_trials())
        assert empty.schema == rows.schema
        options = set(planned_hyperparameters(empty).column_names) - set(HYPERPARAMETERS)
        assert options == {name for trial in plan.sample_trials() for name in trial.config.method_options}

    def test_every_row_that_holds_no_trial_is_named(self, values: Values) -> None:
        table = plan_table(plan_sweep(values))
        configs = ["{", '{"task": "t"}', "[]", *table.column("config").to_pylist()[3:]]
        broken = table.set_column(table.column_names.index("config"), "config", [configs])
        with pytest.raises(FaultsError) as refusal:
            planned_from_table(broken)
        ids = table.column("trial_id").to_pylist()[:3]
        assert {fault.partition(":")[0] for fault in refusal.value.faults} == {f"trial {each}" for each in ids}


class TestFaults:
    def test_all_come_at_once(self, values: Values) -> None:
        values |= {
            "tasks": ["toy/sentimint", "no/such/folder/here"],
            "backbone": "/no/such/backbone",
            "space": {"learning_rte": 1, "num_epochs": {"grid": [0, 3]}, "dropout": 1.5},
            "methods": [
                "adaptr",
                {"adapter": {"adapter_sze": 8, "learning_rate": -1}},
                {"top_layers": {"num_layers": "x"}},
            ],
            "search": {"algorithm": "tpa"},
            "extra": 1,
        }
        faults = faults_of(values)
        expected = [
            "extra: unknown key 'extra'",
            "task toy/sentimint: unknown task of family toy 'sentimint'; did you mean 'sentiment'? Known: accept",
            "task no/such/folder/here: no such folder:",
            "backbone: must be the path of a folder, a hub id, packaged or a URI, but got '/no/such/backbone'",
            "unknown hyperparameter 'space.learning_rte'; did you mean",
            "space.num_epochs: must be a whole number >= 1, but got 0",
            "space.dropout: must be a number in [0, 1) or null, but got 1.5",
            "methods: unknown method 'adaptr'; did you mean 'adapter'? Known: adapter,",
            "unknown option of method adapter 'adapter_sze'; did you mean 'adapter_size'? Known: activation,",
            "adapter.learning_rate: must be a number > 0, but got -1",
            "top_layers.num_layers: must be a whole number, but got 'x'",
            "search.algorithm: unknown search algorithm 'tpa'",
        ]
        assert len(faults) == len(expected)
        for rule in expected:
            assert any(fault.startswith(rule) for fault in faults), rule

    def test_a_declared_margin_is_about_a_method_of_the_sweep_and_changes_no_trial(self, values: Values) -> None:
        plain = plan_sweep(values)
        method = plain.spec.methods[0].method
        declared = plan_sweep({**values, "non_inferiority": {"reference": method, "margin": 0.01}})
        assert [trial.trial_id for trial in declared.trials] == [trial.trial_id for trial in plain.trials]
        [fault] = faults_of({**values, "non_inferiority": {"reference": "no_bert", "margin": 0.01}})
        assert fault.startswith("non_inferiority.reference: unknown method of this sweep 'no_bert'")

    def test_a_model_can_be_registered_where_there_will_be_one(self, values: Values) -> None:
        asked = {**values, "register_model": "tickets"}
        assert plan_sweep(asked).trials == plan_sweep(values).trials
        [fault] = faults_of({**asked, "keep": "none", "log_models": False})
        needs = "register_model: needs models of the winners, but keep is none, which keeps no weights"
        assert fault == f"{needs} and log_models is false"

    def test_classes_that_cannot_be_weighed_are_one_fault_a_task(
        self, values: Values, write_task: Callable[..., Path], tmp_path: Path
    ) -> None:
        values["space"] = {"class_weights": {"grid": ["none", "balanced", "2=3"]}}
        assert faults_of(values) == ("class_weights: unknown label of opinion '2'. Known: 0, 1",)
        values["space"] = {"class_weights": {"grid": ["none", "balanced"]}}
        stars = write_task("stars", under=tmp_path)
        (stars / "task.json").write_text('{"kind": "regression"}', encoding="utf-8")
        values["tasks"] = [str(stars)]
        (fault,) = faults_of(values)
        assert "weigh the classes of a classification, but stars is of kind regression" in fault

    def test_the_backbone_limits_options_and_lengths(self, values: Values) -> None:
        values |= {"methods": [{"top_layers": {"num_layers": {"grid": [1, 3]}}}], "space": {"max_length": 17}}
        lengths, layers = faults_of(values)
        assert lengths == "space.max_length: must be at most 16, the backbone's positions, but got 17"
        assert layers.startswith("top_layers.num_layers")

    def test_values_that_are_good_one_by_one_only_are_faults(self, values: Values) -> None:
        values["methods"] = ["adapter"]  # whose default is wider than this backbone
        assert faults_of(values) == ("adapter.adapter_size: must be in [1, 8], the backbone's hidden size, but got 64",)

    def test_tasks_of_one_name_or_of_the_same_rows_are_refused(
        self, values: Values, write_task: Callable[..., Path], tmp_path: Path
    ) -> None:
        values["tasks"] += [
            str(write_task("opinion", rows=40, under=tmp_path)),
            str(write_task("copy", under=tmp_path)),
        ]
        name, rows = faults_of(values)
        assert name.startswith("tasks: every task must have a name of its own, but")
        assert name.endswith("are all called 'opinion'")
        assert rows.startswith("tasks: every task must have rows of its own, but")
        assert rows.endswith("hold the same")

    def test_a_faulty_backbone_is_a_fault(self, values: Values, tmp_path: Path) -> None:
        for text, fault in (
            ("{}", "config.json must hold 'model_type', but it does not"),
            ("[]", "list"),
            ("{", "Expecting"),
        ):
            (tmp_path / "config.json").write_text(text)
            assert fault in faults_of({**values, "backbone": str(tmp_path)})[0]

    @settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(data=st.data())
    def test_one_part_replaced_by_anything_is_a_plan_or_faults(self, values: Values, data: st.DataObject) -> None:
        anything = st.recursive(
            st.none()
            | st.booleans()
            | st.integers(-3, 40)
            | st.floats()
            | st.sampled_from(["adapter", "x", "", "/nowhere", "."]),
            lambda inner: (
                st.lists(inner, max_size=3)
                | st.dictionaries(
                    st.sampled_from(["grid", "randint", "layernorm", "learning_rate", "z"]), inner, max_size=2
                )
            ),
            max_leaves=5,
        )
        copy = json.loads(json.dumps(values))
        place: Any = copy
        while True:
            key = data.draw(st.sampled_from(list(place) if isinstance(place, dict) else range(len(place))))
            if not isinstance(place[key], dict | list) or not place[key] or data.draw(st.booleans()):
                break
            place = place[key]
        place[key] = data.draw(anything)
        try:
            plan = plan_sweep(copy)
        except SweepSpecError:
            return  # any other error fails the test
        assert isinstance(plan, SweepPlan)
        assert plan.sample_trials()
