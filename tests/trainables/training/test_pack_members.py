"""A pack in training: who steps, joins, waits and leaves. That each trains as it does alone is another file's."""

from __future__ import annotations

import types
import weakref
from collections.abc import Callable, Mapping
from typing import Any

import pytest
import torch

from trainables.backbones.loading import Backbone
from trainables.config import TrialConfig
from trainables.data.tokenized import TokenizedSplit
from trainables.training.model import build_model
from trainables.training.pack import Pack
from trainables.training.running_trial import Job, RunningTrial
from trainables.training.weights import TrainedWeights

MakeSplits = Callable[..., Mapping[str, TokenizedSplit]]
Join = Callable[..., Pack]


def config(**values: Any) -> TrialConfig:
    fixed = {"learning_rate": 1e-2, "batch_size": 16, "num_epochs": 2} | values
    return TrialConfig(task="any", backbone="any", method="adapter", method_options={"adapter_size": 4}, **fixed)


def trials(count: int = 3) -> list[TrialConfig]:
    return [config(seed=seed) for seed in range(count)]


def test_a_trial_shown_is_the_model_s_alone(splits: MakeSplits, join: Join, backbone: Backbone) -> None:
    pack = join(splits(), *trials())
    for seed, trial in enumerate(pack.trials):
        alone = dict(build_model(backbone.encoder, [config(seed=seed)], 2).named_parameters())
        shown = dict(pack.show(trial).named_parameters())
        assert shown.keys() == alone.keys()
        assert all(torch.equal(tensor, alone[name]) for name, tensor in shown.items())


def test_trials_go_through_the_encoder_in_slices_of_nearly_equal_size(splits: MakeSplits, join: Join) -> None:
    data = splits()
    pack = join(data, *trials(5))
    sizes: list[int] = []
    pack.model.register_forward_pre_hook(lambda model, inputs: sizes.append(inputs[0].num_trials))
    longest = max(int(data["train"].lengths[trial.batches[0]].sum()) for trial in pack.trials)
    pack.tokens_per_slice = 3 * longest - 1  # not quite three trials
    pack.step()
    assert sorted(sizes) == [1, 2, 2]
    assert [trial.step for trial in pack.trials] == [1] * 5


def test_those_who_leave_are_gone_and_those_who_stay_go_on(splits: MakeSplits, join: Join) -> None:
    pack = join(splits(), *trials())
    first, second, third = pack.trials
    pack.step()
    rows = pack.weights.rows.clone()
    pack.leave([second])
    assert pack.trials == [first, third]
    assert torch.equal(pack.weights.rows, rows[[0, 2]])
    pack.step()
    assert [trial.step for trial in (first, second, third)] == [2, 1, 2]
    assert (pack.weights.rows != rows[[0, 2]]).any(dim=1).all()


def test_those_who_join_start_from_their_seed(splits: MakeSplits, join: Join, backbone: Backbone) -> None:
    data = splits()
    pack = join(data, *trials(2))
    pack.step()
    newcomer = RunningTrial(Job(config=config(seed=9), done=lambda outcome: None), len(data["train"]))
    rows = pack.weights.rows.clone()
    pack.join([newcomer])
    assert torch.equal(pack.weights.rows[:2], rows)
    assert torch.equal(pack.weights.rows[2], pack.weights.read(build_model(backbone.encoder, [config(seed=9)], 2))[0])
    pack.step()
    assert [trial.step for trial in pack.trials] == [2, 2, 1]


def test_those_who_were_suspended_go_on_where_they_stopped(splits: MakeSplits, join: Join) -> None:
    data = splits()
    undisturbed, pack = (join(data, *trials(2)) for _ in range(2))
    for _ in range(4):
        undisturbed.step()
    first, second = pack.trials
    pack.step()
    pack.step()
    waiting = pack.suspend([first])
    pack.step()
    pack.resume([first], waiting)
    assert [trial.step for trial in pack.trials] == [3, 2]
    pack.step()
    waiting = pack.suspend([second])
    pack.step()
    pack.resume([second], waiting)
    assert [(trial.config.seed, trial.step) for trial in pack.trials] == [(0, 4), (1, 4)]
    torch.testing.assert_close(pack.weights.rows, undisturbed.weights.rows, rtol=0, atol=1e-6)
    torch.testing.assert_close(pack.weights.loss_sums, undisturbed.weights.loss_sums, rtol=0, atol=1e-5)


def test_a_slice_that_does_not_fit_is_halved_and_takes_the_same_step(
    splits: MakeSplits, join: Join, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = splits()
    undisturbed, pack = (join(data, *trials(4)) for _ in range(2))
    undisturbed.step()
    undisturbed.step()
    tokens = pack.tokens_per_slice
    original, sizes = Pack.train_slice, []

    def refuse(self: Pack, first: int, last: int, batches: Any) -> None:
        sizes.append(last - first)
        original(self, first, last, batches) if last - first <= 2 else break_late(self, first, last)

    def break_late(self: Pack, first: int, last: int) -> None:
        self.weights.show(self.model, first, last)  # as if gradients had begun
        self.model.head.weight.grad = torch.ones_like(self.model.head.weight)
        raise MemoryError

    monkeypatch.setattr(Pack, "train_slice", refuse)
    pack.step()
    assert sizes == [4, 2, 2]
    assert pack.tokens_per_slice == tokens // 2
    pack.step()
    assert [trial.step for trial in pack.trials] == [2] * 4
    torch.testing.assert_close(pack.weights.rows, undisturbed.weights.rows, rtol=0, atol=1e-6)
    torch.testing.assert_close(pack.weights.loss_sums, undisturbed.weights.loss_sums, rtol=0, atol=1e-6)


def test_memory_that_ends_in_the_backward_pass_costs_nobody_a_mask_or_a_number(
    splits: MakeSplits, join: Join, backbone: Backbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Statistics of normalisations are written in the forward pass, and are put back."""
    options = {"adapter_size": 4, "norm": "batch"}
    configs = [
        TrialConfig(task="any", backbone="any", method="adapter", method_options=options, seed=seed, batch_size=16)
        for seed in range(3)
    ]
    data = splits()
    undisturbed, pack = (join(data, *configs) for _ in range(2))
    original, refusals = TrainedWeights.take_gradients, []

    def take_gradients(self: TrainedWeights, first: int, last: int) -> torch.Tensor:
        if last - first == 3 and not refusals:
            refusals.append(last - first)
            raise torch.OutOfMemoryError("out of memory")
        return original(self, first, last)

    undisturbed.step()
    with monkeypatch.context() as patch:
        patch.setattr(TrainedWeights, "take_gradients", take_gradients)
        pack.step()
    assert refusals == [3]
    assert undisturbed.weights.statistics.any()
    for name in ("trained", "statistics", "loss_sums"):
        ours, expected = getattr(pack.weights, name), getattr(undisturbed.weights, name)
        torch.testing.assert_close(ours, expected, rtol=0, atol=1e-6)


def test_a_single_trial_that_does_not_fit_says_so_and_is_as_before(
    splits: MakeSplits, join: Join, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(self: Pack, first: int, last: int, batches: Any) -> None:
        self.weights.show(self.model, first, last)
        raise MemoryError

    data = splits()
    undisturbed, pack = (join(data, config()) for _ in range(2))
    undisturbed.step()
    with monkeypatch.context() as patch:
        patch.setattr(Pack, "train_slice", refuse)
        with pytest.raises(MemoryError):
            pack.step()
    assert pack.trials[0].step == 0
    pack.step()
    assert torch.equal(pack.weights.rows, undisturbed.weights.rows)


def test_another_error_is_not_taken_for_a_lack_of_memory(
    splits: MakeSplits, join: Join, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(self: Pack, *given: Any) -> None:
        raise RuntimeError("the products do not fit")

    monkeypatch.setattr(Pack, "train_slice", refuse)
    pack = join(splits(), *trials())
    with pytest.raises(RuntimeError, match="do not fit"):
        pack.step()


class Activations:
    """What a step has made before memory ran out."""


@pytest.mark.parametrize("held_graphs", [False, True])
def test_what_a_step_made_is_gone_before_it_is_taken_again(
    held_graphs: bool, splits: MakeSplits, join: Join, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Recorded steps give their memory back first, and then the whole slice tries once more."""
    pack = join(splits(), *trials(2))
    original = Pack.train_slice
    made: list[weakref.ref[Activations]] = []
    left: list[int] = []

    def train_slice(self: Pack, first: int, last: int, batches: Any) -> None:
        left.append(sum(each() is not None for each in made))
        if not made:
            activations = Activations()
            made.append(weakref.ref(activations))
            raise torch.OutOfMemoryError("out of memory")
        original(self, first, last, batches)

    monkeypatch.setattr(Pack, "train_slice", train_slice)
    if held_graphs:
        monkeypatch.setattr(pack, "captured", types.SimpleNamespace(make_room=lambda: len(left) == 1))
    pack.step()
    assert left == ([0, 0] if held_graphs else [0, 0, 0])
    assert [trial.step for trial in pack.trials] == [1, 1]
