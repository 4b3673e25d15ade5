"""A task with a method entry: the identity of a configuration and its trials, and its place in a space."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import trainables.config
from orchestrator.planning import task_method as task_method_module
from orchestrator.planning.plan import TaskMethod, plan_sweep
from tests.factories import trial_config
from tests.fixtures import smaller_options
from trainables.backbones.loading import describe_backbone
from trainables.config import ADDED_HYPERPARAMETERS, HYPERPARAMETERS, TrialConfig
from trainables.methods import adapter, method_names, parse_options, reference_names

Values = dict[str, Any]


def config_ids(values: Any) -> list[str]:
    return list(dict.fromkeys(trial.config_id for trial in plan_sweep(values).trials))


def one(values: Values, **space: Any) -> str:
    """The config_id of a sweep of one adapter with these hyperparameters."""
    (config_id,) = config_ids({**values, "methods": [{"adapter": {"adapter_size": 2, **space}}]})
    return config_id


class TestIdentity:
    def test_it_does_not_depend_on_seeds_paths_formats_and_order(
        self, values: Values, write_task: Callable[..., Path], tmp_path: Path
    ) -> None:
        moved: Values = {
            "methods": [{"layernorm": {}}, {"method": "adapter", "space": {"adapter_size": {"grid": [4, 1]}}}],
            "space": {"max_length": 16, "num_epochs": 2},
            "seeds": [5],
            "tasks": [str(write_task("renamed", ending="csv", under=tmp_path))],
            "backbone": shutil.copytree(values["backbone"], tmp_path / "copy"),
            "name": "other",
        }
        assert sorted(config_ids({**moved, "backbone": str(moved["backbone"])})) == sorted(config_ids(values))

    def test_defaults_written_out_and_whole_floats_change_nothing(self, values: Values) -> None:
        default = trial_config()
        written = {name: getattr(default, name) for name in HYPERPARAMETERS} | {"num_epochs": 2, "max_length": 16}
        assert one(values, **written) == one(values)
        assert one(values, weight_decay=1) == one(values, weight_decay=1.0)

    def test_a_hyperparameter_that_came_later_has_no_part_in_it_at_its_default(
        self, values: Values, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        hashed: list[Any] = []
        monkeypatch.setattr(task_method_module, "_digest", lambda content: [hashed.append(content), "id"][1])
        assert one(values) == one(values, class_weights="balanced") == "id"
        before, after = (content["hyperparameters"] for content in hashed if isinstance(content, dict))
        assert before.keys() == HYPERPARAMETERS.keys() - ADDED_HYPERPARAMETERS
        assert after == before | {"class_weights": "balanced"}

    def test_every_hyperparameter_and_option_changes_it(self, values: Values) -> None:
        other = {
            "learning_rate": 1e-5,
            "num_epochs": 3,
            "batch_size": 4,
            "warmup_ratio": 0.5,
            "weight_decay": 0.5,
            "max_grad_norm": 2.0,
            "max_length": 8,
            "dropout": 0.0,
            "precision": "fp32",
            "class_weights": "balanced",
        }
        assert other.keys() == HYPERPARAMETERS.keys()
        ids = [one(values), *(one(values, **{name: value}) for name, value in other.items())]
        shape = describe_backbone(values["backbone"], weights=False).shape
        needs_files = [
            name
            for name in method_names()
            for fault in parse_options(name, {}).faults(shape)
            if fault.partition(":")[0] in reference_names(name)
        ]
        others = [name for name in method_names() if name not in ("adapter", *needs_files)]
        ids += config_ids({**values, "methods": [{name: smaller_options(name, shape)} for name in others]})
        ids += [one(values, adapter_size=3), one(values, placement="pfeiffer"), one(values, scaling=2)]
        assert len(set(ids)) == len(ids)

    def test_other_data_other_weights_and_another_outcome_version_change_it(
        self, values: Values, write_task: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        other = shutil.copytree(values["backbone"], tmp_path / "other")
        weights = bytearray((other / "model.safetensors").read_bytes())
        weights[-1] ^= 1
        (other / "model.safetensors").write_bytes(weights)
        ids = [
            one(values),
            one({**values, "backbone": str(other)}),
            one({**values, "tasks": [str(write_task("longer", rows=33, under=tmp_path))]}),
        ]
        monkeypatch.setattr(trainables.config, "OUTCOME_VERSION", trainables.config.OUTCOME_VERSION + 1)
        ids.append(one(values))
        assert len(set(ids)) == 4

    def test_a_trial_is_its_configuration_and_its_seed(self, values: Values) -> None:
        def ids(seeds: list[int]) -> dict[int, str]:
            plan = plan_sweep({**values, "seeds": seeds, "methods": ["layernorm"]})
            return {trial.config.seed: trial.trial_id for trial in plan.trials}

        assert ids([0, 1])[1] == ids([1, 2])[1]
        assert len({*ids([0, 1, 2]).values()}) == 3


POINT: Values = {
    "max_length": 16,
    "learning_rate": 1e-3,
    "num_epochs": 2,
    "dropout": 0,
    "adapter_size": 4,
    "train_layernorms": True,
}


class TestPoints:
    @pytest.fixture
    def task_method(self, values: Values) -> TaskMethod:
        values["space"] = {
            "max_length": 16,
            "learning_rate": {"loguniform": [1e-4, 1e-2]},
            "num_epochs": {"randint": [1, 3]},
            "dropout": {"choice": [None, 0, 0.5]},
        }
        values["methods"] = [{"adapter": {"adapter_size": {"grid": [1, 4]}, "train_layernorms": True}}]
        values["search"] = {"algorithm": "tpe", "num_samples": 5}
        (task_method,) = plan_sweep(values).task_methods
        return task_method

    def test_a_configuration_finds_back_to_the_values_that_made_it(self, task_method: TaskMethod) -> None:
        for changed in ({}, {"dropout": None}, {"learning_rate": 1e-2}, {"adapter_size": 1}):
            point = {**POINT, **changed}
            trial = task_method.trials(point)[0]
            assert task_method.point_of(trial.config) == point
            assert task_method.identity(trial.config) == trial.config_id

    def test_one_outside_the_space_has_no_place_in_it(self, task_method: TaskMethod) -> None:
        for changed in (
            {"dropout": 0.1},
            {"learning_rate": 1e-5},
            {"num_epochs": 4},
            {"adapter_size": 2},
            {"max_length": 8},
            {"train_layernorms": False},
        ):
            config = task_method.trials({**POINT, **changed})[0].config
            assert task_method.point_of(config) is None

    def test_one_of_another_method_has_no_place_either(self, task_method: TaskMethod, values: Values) -> None:
        (other,) = plan_sweep({**values, "methods": ["layernorm"]}).task_methods
        values["space"].pop("dropout")
        (config, *_) = (trial.config for trial in other.trials({"max_length": 16}))
        assert task_method.point_of(config) is None

    def test_a_value_that_a_method_pins_is_found_as_it_is_written(
        self, values: Values, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def pin(options: Any) -> Any:
            return dataclasses.replace(options, adapter_size=options.adapter_size + 1)

        monkeypatch.setattr(adapter, "resolve", pin, raising=False)
        values["search"] = {"algorithm": "tpe", "num_samples": 5}
        values["methods"] = [{"adapter": {"adapter_size": {"grid": [1, 4]}}}]
        (task_method,) = plan_sweep(values).task_methods
        trial = task_method.trials({"num_epochs": 2, "max_length": 16, "adapter_size": 4})[0]
        assert trial.config.method_options["adapter_size"] == 5
        assert task_method.point_of(trial.config) == {"num_epochs": 2, "max_length": 16, "adapter_size": 4}

    def test_the_size_of_a_space_and_its_longest_trial(self, task_method: TaskMethod, values: Values) -> None:
        assert (task_method.size, task_method.most_configurations, task_method.most_epochs) == (float("inf"), 5, 3)
        del values["space"]["learning_rate"]
        (finite,) = plan_sweep(values).task_methods
        assert finite.size == 3 * 3 * 2
        del values["space"]["num_epochs"]
        (default,) = plan_sweep(values).task_methods
        assert default.most_epochs == TrialConfig.num_epochs
