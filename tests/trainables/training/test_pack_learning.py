"""What training leads to: tasks are learned, the right tensors change, and the seed decides everything."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping

import numpy as np
import pytest
import torch

from tests.factories import brief_config
from trainables import metrics
from trainables.backbones import checkpoint_names
from trainables.backbones.loading import Backbone
from trainables.data.tokenized import TokenizedSplit
from trainables.outcome import EpochReport
from trainables.training.evaluation import evaluate
from trainables.training.model import AdaptedModel
from trainables.training.running_trial import RunningTrial

Splits = Mapping[str, TokenizedSplit]
MakeSplits = Callable[..., Splits]
Fit = Callable[..., tuple[RunningTrial, AdaptedModel]]


def without_times(trial: RunningTrial) -> list[EpochReport]:
    return [dataclasses.replace(epoch, duration_s=0.0) for epoch in trial.epochs]


class TestLearning:
    @pytest.mark.parametrize("method", ["adapter", "layernorm", "top_layers", "full_finetuning"])
    @pytest.mark.thinned(2)
    def test_an_easy_task_is_learned(self, method: str, splits: MakeSplits, fit: Fit) -> None:
        data = splits(rows=128)
        trial, model = fit(data, brief_config(method, num_epochs=10, learning_rate=2e-2, dropout=0.0))
        assert trial.epochs[-1].train_loss < 0.8 * trial.epochs[0].train_loss
        assert evaluate(model, data["test"], metrics.get("accuracy"))["accuracy"] > 0.65  # 0.5 is chance

    @pytest.mark.thorough
    def test_a_regression_is_learned(self, splits: MakeSplits, fit: Fit) -> None:
        data = splits(rows=128, kind="regression")
        trial, model = fit(data, brief_config(num_epochs=10, dropout=0.0), metric="pearson")
        assert trial.epochs[-1].validation_score > max(0.7, trial.epochs[0].validation_score)
        assert trial.epochs[-1].validation["loss"] < trial.epochs[0].validation["loss"]
        assert evaluate(model, data["test"], metrics.get("pearson"))["pearson"] > 0.7

    @pytest.mark.parametrize(
        ("method", "changes"),
        [
            ("adapter", lambda name: "layernorm" in name),
            ("layernorm", lambda name: "layernorm" in name),
            ("top_layers", lambda name: name.startswith(("layers.1.", "pooler."))),
            ("full_finetuning", lambda name: True),
        ],
    )
    def test_the_right_tensors_of_the_checkpoint_change_and_no_bit_of_the_others(
        self, method: str, changes: Callable[[str], bool], splits: MakeSplits, fit: Fit, backbone: Backbone
    ) -> None:
        from safetensors.torch import load_file

        _, model = fit(splits(), brief_config(method))
        assert backbone.info.folder is not None
        on_disk = load_file(backbone.info.folder / "model.safetensors")
        compared: set[str] = set()
        for ours, theirs in checkpoint_names(backbone.info.shape).items():
            expected = torch.cat([on_disk[name] for name in theirs])
            assert torch.equal(backbone.encoder.get_parameter(ours), expected), f"shared {ours}"
            trained = model.encoder.get_parameter(ours).detach().reshape(expected.shape)
            assert torch.equal(trained, expected) == (not changes(ours)), ours
            compared.update(theirs)
        assert compared == set(on_disk)


class TestSeeds:
    def test_the_same_seed_gives_the_same_training_to_the_bit(self, splits: MakeSplits, fit: Fit) -> None:
        data = splits()
        (first, model), (again, same) = (fit(data, brief_config(seed=3)) for _ in range(2))
        assert without_times(first) == without_times(again)
        state = same.state_dict()
        assert all(torch.equal(tensor, state[name]) for name, tensor in model.state_dict().items())

    def test_another_seed_gives_another_training(self, splits: MakeSplits, fit: Fit) -> None:
        data = splits()
        first, other = (fit(data, brief_config(seed=seed))[0] for seed in (3, 4))
        assert first.epochs[0].train_loss != other.epochs[0].train_loss

    def test_global_random_numbers_decide_nothing(self, splits: MakeSplits, fit: Fit) -> None:
        data = splits()
        torch.manual_seed(1)
        np.random.seed(1)
        first, _ = fit(data, brief_config())
        torch.manual_seed(2)
        again, _ = fit(data, brief_config())
        assert without_times(first) == without_times(again)
