"""Rows, moments and losses follow a trial wherever it stands in the pack, and off the device."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from tests.pieces import laid_out
from trainables.backbones.loading import Backbone
from trainables.config import TrialConfig
from trainables.training.model import AdaptedModel, build_model
from trainables.training.running_trial import Job, RunningTrial
from trainables.training.weights import TrainedWeights

IDS = torch.randint(4, 64, (2, 6), generator=torch.Generator().manual_seed(0))


def config(seed: int = 0) -> TrialConfig:
    options = {"adapter_size": 4, "init_std": 0.1}
    return TrialConfig(task="any", backbone="any", method="adapter", method_options=options, seed=seed)


def build(backbone: Backbone, *seeds: int) -> AdaptedModel:
    return build_model(backbone.encoder, [config(seed) for seed in seeds], 3)


def logits(model: AdaptedModel) -> Tensor:
    """Of the same two sequences for every trial before the model: (2K, C)."""
    return model.eval()(laid_out(IDS.repeat(model.num_trials, 1), num_trials=model.num_trials))


def stepped(backbone: Backbone, *seeds: int) -> tuple[AdaptedModel, TrainedWeights]:
    """Trials that have taken a step each, by gradients of their own."""
    model = build(backbone, *seeds)
    weights = TrainedWeights(model)
    step(weights, seeds, [0] * len(seeds))
    return model, weights


def step(weights: TrainedWeights, seeds: Sequence[int], steps: Sequence[int]) -> None:
    """A step of every trial, whose gradient follows from its seed and step."""
    job = [Job(config=replace(config(seed), warmup_ratio=0.0), done=lambda outcome: None) for seed in seeds]
    trials = [RunningTrial(each, 64) for each in job]
    grads = []
    for trial, step in zip(trials, steps, strict=True):
        trial.step = step
        generator = torch.Generator().manual_seed(100 * trial.config.seed + step)
        grads.append(torch.randn(weights.trained.shape[1], generator=generator))
    weights.update(0, len(seeds), torch.stack(grads), trials)
    weights.loss_sums += torch.tensor([1.0 + seed for seed in seeds])


def assert_same(weights: TrainedWeights, place: int, expected: TrainedWeights, other: int) -> None:
    mine, theirs = weights.state(place), expected.state(other)
    assert torch.equal(mine.row, theirs.row)
    assert torch.equal(mine.loss_sum, theirs.loss_sum)
    assert (mine.moments is None) == (theirs.moments is None)
    if mine.moments is not None and theirs.moments is not None:
        assert all(torch.equal(one, other) for one, other in zip(mine.moments, theirs.moments, strict=True))


def test_who_joins_starts_without_moments_and_who_was_there_keeps_them(backbone: Backbone) -> None:
    _, weights = stepped(backbone, 0, 1)
    _, alone = stepped(backbone, 0)
    newcomer = TrainedWeights(build(backbone, 2))
    weights.join(build(backbone, 2))
    assert_same(weights, 0, alone, 0)
    state = weights.state(2)
    assert torch.equal(state.row, newcomer.state(0).row)
    assert state.loss_sum == 0
    assert state.moments is not None
    assert not any(moment.any() for moment in state.moments)
    step(weights, (0, 1, 2), (1, 1, 0))
    step(newcomer, (2,), (0,))
    assert_same(weights, 2, newcomer, 0)
    step(alone, (0,), (1,))
    assert_same(weights, 0, alone, 0)


def test_who_stays_goes_on_where_it_stood_when_others_leave(backbone: Backbone) -> None:
    model, weights = stepped(backbone, 0, 1, 2)
    weights.keep([2, 0])
    assert weights.num_trials == 2
    for place, seed in enumerate((2, 0)):
        _, alone = stepped(backbone, seed)
        assert_same(weights, place, alone, 0)
    weights.show(model, 0, 1)
    alone_model, alone = stepped(backbone, 2)
    alone.show(alone_model, 0, 1)
    torch.testing.assert_close(logits(model), logits(alone_model), rtol=0, atol=1e-6)


def test_a_suspended_trial_returns_as_it_was_also_to_a_pack_that_has_taken_no_step(backbone: Backbone) -> None:
    _, weights = stepped(backbone, 0, 1)
    state = weights.state(1)
    weights.keep([0])
    step(weights, (0,), (1,))
    for pack in (weights, TrainedWeights(build(backbone, 5))):
        before = pack.state(0)
        pack.resume([state])
        _, alone = stepped(backbone, 1)
        assert_same(pack, 1, alone, 0)
        assert torch.equal(pack.state(0).row, before.row)


def test_a_state_is_a_copy(backbone: Backbone) -> None:
    _, weights = stepped(backbone, 0)
    state = weights.state(0)
    row, moments = state.row.clone(), [moment.clone() for moment in state.moments or ()]
    step(weights, (0,), (1,))
    assert torch.equal(state.row, row)
    assert state.moments is not None
    assert all(torch.equal(one, other) for one, other in zip(state.moments, moments, strict=True))


def test_who_leaves_costs_no_memory_for_all_that_were_there(
    backbone: Backbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Trials leave where memory has run out; with statistics beside the weights there would be a second copy of all."""
    options = {"adapter_size": 4, "norm": "batch"}
    configs = [replace(config(seed), method_options=options) for seed in range(3)]
    weights = TrainedWeights(build_model(backbone.encoder, configs, 2))
    whole = weights.rows.clone()
    with monkeypatch.context() as patch:
        patch.setattr(TrainedWeights, "rows", property(lambda self: pytest.fail("all rows at once")))
        assert torch.equal(weights.state(1).row, whole[1])
        weights.keep([2, 0])
    assert torch.equal(weights.rows, whole[[2, 0]])


def test_new_rows_are_of_trials_that_have_taken_no_step(backbone: Backbone) -> None:
    _, weights = stepped(backbone, 0, 1)
    weights.replace_rows(weights.read(build(backbone, 3)))
    state = weights.state(0)
    assert (weights.num_trials, state.moments, state.loss_sum.item()) == (1, None, 0.0)


def test_an_update_moves_its_own_trials_only(backbone: Backbone) -> None:
    _, weights = stepped(backbone, 0, 1, 2)
    before = weights.trained.clone()
    trial = RunningTrial(Job(config=config(1), done=lambda outcome: None), 64)
    trial.step = 1
    weights.update(1, 2, torch.ones(1, before.shape[1]), [trial])
    assert torch.equal(weights.trained[[0, 2]], before[[0, 2]])
    assert not torch.equal(weights.trained[1], before[1])


def test_trials_anywhere_in_the_pack_can_be_shown_together(backbone: Backbone) -> None:
    model = build(backbone, 0, 1, 2, 3)
    weights = TrainedWeights(model)
    together = logits(model).view(4, 2, 3)
    for places in ([0, 2], [3, 1], [1, 2, 3], [2]):
        weights.show_places(model, places)
        torch.testing.assert_close(logits(model).view(-1, 2, 3), together[places], rtol=0, atol=1e-6)
