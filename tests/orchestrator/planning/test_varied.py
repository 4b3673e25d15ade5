"""What a sweep varies, of a plan that is known in full and of a search that plans as it goes."""

from __future__ import annotations

import dataclasses
from typing import Any

from orchestrator.planning.plan import plan_sweep
from orchestrator.planning.varied import varied_in_trials
from orchestrator.record import describe_trial


def test_only_what_has_several_values_within_a_method_is_named(values: dict[str, Any]) -> None:
    # `values`: adapter with two sizes, layernorm with one configuration, each with two seeds.
    plan = plan_sweep(values)
    assert plan.varied == {"adapter": ("adapter_size",), "layernorm": ()}
    config = plan.trials[0].config
    words = describe_trial(config.method, config.hyperparameters(), config.seed, plan.varied[config.method])
    assert words == "adapter adapter_size=1 seed 0"


def test_options_come_before_what_all_methods_share(values: dict[str, Any]) -> None:
    values["space"]["learning_rate"] = {"grid": [1e-3, 1e-4]}
    assert plan_sweep(values).varied == {"adapter": ("adapter_size", "learning_rate"), "layernorm": ("learning_rate",)}


def test_a_value_that_differs_between_methods_alone_is_not_named(values: dict[str, Any]) -> None:
    values["methods"] = [
        {"adapter": {"adapter_size": 2, "learning_rate": 1e-3}},
        {"layernorm": {"learning_rate": 1e-2}},
    ]
    assert plan_sweep(values).varied == {"adapter": (), "layernorm": ()}


def test_entries_of_one_method_are_told_apart(values: dict[str, Any]) -> None:
    values["methods"] = [{"adapter": {"adapter_size": 2}}, {"adapter": {"adapter_size": 4, "num_epochs": 1}}]
    assert plan_sweep(values).varied == {"adapter": ("adapter_size", "num_epochs")}


def test_one_and_true_are_different_values(values: dict[str, Any]) -> None:
    plan = plan_sweep({**values, "methods": [{"adapter": {"adapter_size": 1}}]})
    one, other = plan.trials
    is_true = dict(other.config.method_options) | {"adapter_size": True}
    changed = dataclasses.replace(other, config=dataclasses.replace(other.config, method_options=is_true))
    assert varied_in_trials([one, changed]) == {"adapter": ("adapter_size",)}


class TestAdaptive:
    def adaptive(self, values: dict[str, Any], *methods: Any) -> Any:
        search = {"algorithm": "tpe", "num_samples": 4}
        space = {"learning_rate": {"loguniform": [1e-4, 1e-2]}, "batch_size": {"grid": [16]}, "num_epochs": 1}
        return plan_sweep({**values, "space": space, "methods": list(methods), "search": search}).varied

    def test_what_is_searched_is_named(self, values: dict[str, Any]) -> None:
        found = self.adaptive(values, {"adapter": {"adapter_size": {"randint": [1, 4]}, "dropout": 0.1}}, "layernorm")
        assert found == {"adapter": ("adapter_size", "learning_rate"), "layernorm": ("learning_rate",)}

    def test_what_entries_of_one_method_say_otherwise_is_named(self, values: dict[str, Any]) -> None:
        found = self.adaptive(values, {"adapter": {"adapter_size": 2}}, {"adapter": {"adapter_size": 4, "dropout": 0}})
        assert found == {"adapter": ("adapter_size", "learning_rate", "dropout")}
