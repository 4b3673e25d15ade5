"""A trial that starts from what another has trained: its encoder goes on, its head is its own."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.factories import brief_config
from trainables.backbones.loading import Backbone
from trainables.config import TrialConfig
from trainables.engine.engine import Engine
from trainables.engine.inbox import Inbox
from trainables.inference.saved_scores import start_of
from trainables.outcome import OutcomeStatus, TrialOutcome
from trainables.training.model import AdaptedModel, build_model
from trainables.training.running_trial import Job
from trainables.training.start import begin

SMALL = {"adapter": {"adapter_size": 4}, "lora": {"rank": 2}, "full_finetuning": {}, "top_layers": {"num_layers": 1}}


def model_of(backbone: Backbone, method: str, *seeds: int) -> AdaptedModel:
    configs = [
        TrialConfig(task="any", backbone="any", method=method, method_options=SMALL[method], seed=seed)
        for seed in seeds
    ]
    return build_model(backbone.encoder, configs, 3)


def trained(model: AdaptedModel) -> dict[str, Tensor]:
    return {name: parameter.detach() for name, parameter in model.named_parameters() if parameter.requires_grad}


def changed(model: AdaptedModel) -> dict[str, Tensor]:
    """What a saved model of one trial would hold, were it trained to be something else."""
    return {name: (tensor[0] if model.has_trial_axes else tensor) + 1.0 for name, tensor in trained(model).items()}


@pytest.mark.parametrize("method", SMALL)
def test_the_encoder_is_the_start_and_the_head_its_own(backbone: Backbone, method: str) -> None:
    start = changed(model_of(backbone, method, 5))
    fresh, model = trained(model_of(backbone, method, 7)), model_of(backbone, method, 7)
    begin(model, [lambda: start])
    for name, tensor in trained(model).items():
        expected = fresh[name] if name.startswith("head.") else start[name].view_as(tensor)
        assert torch.equal(tensor, expected), name


def test_of_a_pack_each_trial_has_its_own_start_or_none(backbone: Backbone) -> None:
    start = changed(model_of(backbone, "adapter", 5))
    fresh, model = trained(model_of(backbone, "adapter", 0, 1)), model_of(backbone, "adapter", 0, 1)
    begin(model, [None, lambda: start])
    for name, tensor in trained(model).items():
        assert torch.equal(tensor[0], fresh[name][0]), name
        assert torch.equal(tensor[1], fresh[name][1] if name.startswith("head.") else start[name]), name


def test_a_start_of_another_kind_or_size_is_refused_and_nothing_changed(backbone: Backbone) -> None:
    model = model_of(backbone, "adapter", 0)
    before = {name: tensor.clone() for name, tensor in trained(model).items()}
    good = changed(model)
    name = next(name for name in good if not name.startswith("head."))
    for start, message in [
        (changed(model_of(backbone, "lora", 0)), "must hold what the trial trains, but differs in"),
        ({**good, name: torch.zeros(3)}, rf"{name} is \(3,\) instead of"),
    ]:
        with pytest.raises(ValueError, match=message):
            begin(model, [lambda start=start: start])  # type: ignore[misc]
    assert all(torch.equal(tensor, before[name]) for name, tensor in trained(model).items())


@pytest.mark.parametrize("method", ["adapter", "full_finetuning"])
def test_a_training_goes_on_from_another_task(
    engine: Engine, tiny_bert: Path, task_folder: Callable[..., Path], tmp_path: Path, method: str
) -> None:
    def config(task: Path, **values: Any) -> TrialConfig:
        fixed = {"num_epochs": 1, "max_length": 16, "precision": "fp32", "method_options": SMALL[method]}
        return brief_config(method, task=str(task), backbone=str(tiny_bert), **(fixed | values))

    first, second = task_folder(name="first"), task_folder(name="second", kind="regression")
    assert engine.run(config(first), save_to=tmp_path / "one").status is OutcomeStatus.COMPLETED
    outcomes: list[TrialOutcome] = []
    inbox = Inbox()
    # It moves by next to nothing, so that what it began with is still to be seen.
    still = config(second, learning_rate=1e-12)
    inbox.put(
        Job(config=still, done=outcomes.append, save_to=tmp_path / "two", start=lambda: start_of(tmp_path / "one"))
    )
    engine.work(inbox)
    assert outcomes[0].status is OutcomeStatus.COMPLETED, outcomes[0].error
    one, two = start_of(tmp_path / "one"), start_of(tmp_path / "two")
    for name in one.keys() | two.keys():
        if name.startswith("head."):
            assert one[name].shape != two[name].shape
        else:
            torch.testing.assert_close(one[name], two[name], rtol=0, atol=1e-7)
