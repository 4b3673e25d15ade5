"""TrialConfig: a value that refuses every fault at once and is the same wherever it travels."""

from __future__ import annotations

import dataclasses
import json
import math
import pickle
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trainables.config import HYPERPARAMETERS, TrialConfig, check_hyperparameter
from trainables.faults import FaultsError


def config(**values: Any) -> TrialConfig:
    return TrialConfig(**({"task": "toy/sentiment", "backbone": "minilm", "method": "adapter"} | values))


configs = st.builds(
    config,
    task=st.text(min_size=1),
    method_options=st.dictionaries(
        st.text(), st.one_of(st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False), st.text())
    ),
    learning_rate=st.floats(1e-9, 1e3),
    num_epochs=st.integers(1, 100),
    dropout=st.one_of(st.none(), st.floats(0, 0.99)),
    precision=st.sampled_from(["auto", "bf16", "fp32"]),
    class_weights=st.sampled_from(["none", "balanced", "spam=5, a=b=0.5"]),
    seed=st.integers(0, 2**63 - 1),
)


class TestFaults:
    def test_all_of_them_are_told_at_once(self) -> None:
        faulty: dict[str, Any] = {
            "task": "",
            "backbone": 3,
            "method": None,
            "method_options": {"adapter_size": [1, 2]},
            "learning_rate": 0,
            "num_epochs": 1.5,
            "batch_size": 0,
            "warmup_ratio": 1.0,
            "weight_decay": -0.1,
            "max_grad_norm": math.inf,
            "max_length": 2,
            "dropout": 1,
            "precision": "fp16",
            "class_weights": "spam=0",
            "seed": -1,
            "folds": 1,
            "fold": -1,
        }
        assert faulty.keys() == {field.name for field in dataclasses.fields(TrialConfig)}
        with pytest.raises(FaultsError) as refusal:
            config(**faulty)
        faults = refusal.value.faults
        assert len(faults) == len(faulty)
        for name, value in faulty.items():
            (fault,) = [fault for fault in faults if fault.startswith(f"{name}: ")]
            assert repr(value) in fault
        assert "bf16" in next(fault for fault in faults if "precision" in fault)

    @pytest.mark.parametrize("name", ["num_epochs", "batch_size", "max_length", "seed", "learning_rate", "dropout"])
    @pytest.mark.parametrize("value", [True, False, "3", math.nan])
    def test_neither_a_bool_nor_text_nor_nan_is_a_number(self, name: str, value: object) -> None:
        assert check_hyperparameter(name, value) is not None
        with pytest.raises(FaultsError, match=f"{name}: must be"):
            config(**{name: value})

    @pytest.mark.parametrize("options", [None, [], "adapter_size", {3: 4}, {"adapter_size": {}}])
    def test_options_must_map_names_to_plain_values(self, options: object) -> None:
        with pytest.raises(FaultsError, match="method_options: must map names"):
            config(method_options=options)

    def test_unknown_and_missing_keys_are_told_together(self) -> None:
        with pytest.raises(FaultsError) as refusal:
            TrialConfig.from_dict({"task": "toy/sentiment", "learning_rat": 1, "sed": 2})
        text = str(refusal.value)
        assert "4 faults" in text
        assert "did you mean 'learning_rate'" in text
        assert "did you mean 'seed'" in text
        assert "backbone: is required" in text
        assert "method: is required" in text

    def test_bounds_are_kept_where_they_are_stated(self) -> None:
        good: dict[str, list[Any]] = {
            "learning_rate": [1e-30, 5],
            "warmup_ratio": [0, 0.99],
            "weight_decay": [0],
            "dropout": [None, 0, 0.99],
            "max_length": [3],
            "seed": [0, 2**63 - 1],
        }
        for name, values in good.items():
            assert [check_hyperparameter(name, value) for value in values] == [None] * len(values)
        for name, value in {"seed": 2**63, "warmup_ratio": -0.1, "dropout": 1.0, "learning_rate": -1}.items():
            assert check_hyperparameter(name, value) is not None


class TestValue:
    @settings(deadline=None)
    @given(config=configs)
    def test_it_survives_json_and_pickle(self, config: TrialConfig) -> None:
        for copy in (
            TrialConfig.from_dict(json.loads(json.dumps(config.to_dict()))),
            pickle.loads(pickle.dumps(config)),
            dataclasses.replace(config),
        ):
            assert copy == config
            assert hash(copy) == hash(config)
            assert copy.to_dict() == config.to_dict()

    def test_whole_and_real_numbers_of_one_value_are_one_configuration(self) -> None:
        whole, real = config(learning_rate=1, dropout=0), config(learning_rate=1.0, dropout=0.0)
        assert whole == real
        assert hash(whole) == hash(real)
        assert json.dumps(whole.to_dict()) == json.dumps(real.to_dict())

    def test_the_order_of_options_does_not_matter(self) -> None:
        one, other = config(method_options={"a": 1, "b": 2}), config(method_options={"b": 2, "a": 1})
        assert one == other
        assert hash(one) == hash(other)

    @pytest.mark.parametrize("field", ["task", "method_options", "learning_rate", "seed", "precision", "dropout"])
    def test_any_difference_makes_another_configuration(self, field: str) -> None:
        others: dict[str, Any] = {
            "task": "other",
            "method_options": {"adapter_size": 2},
            "learning_rate": 1e-5,
            "seed": 1,
            "precision": "bf16",
            "dropout": 0.0,
        }
        assert config() != config(**{field: others[field]})

    def test_it_cannot_be_changed_afterwards(self) -> None:
        options: dict[str, Any] = {"adapter_size": 2}
        trial = config(method_options=options)
        options["adapter_size"] = 3
        assert trial.method_options == {"adapter_size": 2}
        with pytest.raises(dataclasses.FrozenInstanceError):
            trial.seed = 1  # type: ignore[misc]
        with pytest.raises(TypeError):
            trial.method_options["adapter_size"] = 3  # type: ignore[index]

    def test_hyperparameters_are_everything_searched_and_not_the_seed(self) -> None:
        found = config(method_options={"adapter_size": 2}, seed=9).hyperparameters()
        assert found.keys() == {*HYPERPARAMETERS, "adapter_size"}
        assert (found["adapter_size"], found["learning_rate"]) == (2, 3e-4)
