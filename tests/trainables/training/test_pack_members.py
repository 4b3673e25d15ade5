"""A pack in training: who steps, joins, waits and leaves. That each trains as it does alone is another file's."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pytest
import torch

from tests.factories import brief_config
from trainables.backbones.loading import Backbone
from trainables.config import TrialConfig
from trainables.data.tokenized import TokenizedSplit
from trainables.training.model import build_model
from trainables.training.pack import Pack
from trainables.training.running_trial import Job, RunningTrial

MakeSplits = Callable[..., Mapping[str, TokenizedSplit]]
Join = Callable[..., Pack]


def trials(count: int = 3) -> list[TrialConfig]:
    return [brief_config(seed=seed) for seed in range(count)]


def test_a_trial_shown_is_the_model_s_alone(splits: MakeSplits, join: Join, backbone: Backbone) -> None:
    pack = join(splits(), *trials())
    for seed, trial in enumerate(pack.trials):
        alone = dict(build_model(backbone.encoder, [brief_config(seed=seed)], 2).named_parameters())
        shown = dict(pack.show(trial).named_parameters())
        assert shown.keys() == alone.keys()
        assert all(torch.equal(tensor, alone[name]) for name, tensor in shown.items())


def test_trials_go_through_the_encoder_in_slices_of_nearly_equal_size(splits: MakeSplits, join: Join) -> None:
    data = splits()
    pack = join(data, *trials(5))
    sizes: list[int] = []
    pack.model.register_forward_pre_hook(lambda model, inputs: sizes.append(len(inputs[0]) // 16))
    longest = max(int(data["train"].lengths[trial.batches[0]].max()) for trial in pack.trials)
    pack.tokens_per_slice = 3 * 16 * longest - 1  # not quite three trials
    pack.step()
    assert sorted(sizes) == [1, 2, 2]
    assert [trial.step for trial in pack.trials] == [1] * 5


def test_those_who_leave_keep_what_they_have_and_those_who_stay_go_on(splits: MakeSplits, join: Join) -> None:
    pack = join(splits(), *trials())
    first, second, third = pack.trials
    pack.step()
    rows = [trial.row for trial in pack.trials]
    pack.leave([second])
    assert pack.trials == [first, third]
    pack.step()
    assert torch.equal(second.row, rows[1])
    assert second.step == 1
    assert not torch.equal(first.row, rows[0])
    assert torch.equal(pack.weights.rows, torch.stack([first.row, third.row]))


def test_those_who_join_start_from_their_seed(splits: MakeSplits, join: Join, backbone: Backbone) -> None:
    data = splits()
    pack = join(data, *trials(2))
    pack.step()
    newcomer = RunningTrial(
        Job(config=brief_config(seed=9), done=lambda outcome: None), data["train"].lengths, torch.device("cpu")
    )
    rows = pack.weights.rows.clone()
    pack.join([newcomer])
    assert torch.equal(pack.weights.rows[:2], rows)
    assert torch.equal(newcomer.row, pack.weights.read(build_model(backbone.encoder, [brief_config(seed=9)], 2))[0])
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
    pack.suspend([first])
    pack.step()
    pack.resume([first])
    assert [trial.step for trial in pack.trials] == [3, 2]
    pack.step()
    pack.suspend([second])
    pack.step()
    for ours, expected in ((first, undisturbed.trials[0]), (second, undisturbed.trials[1])):
        assert ours.step == 4
        torch.testing.assert_close(ours.row, expected.row, rtol=0, atol=1e-5)


def test_newcomers_are_waited_for_between_windows(splits: MakeSplits, join: Join) -> None:
    pack = join(splits(rows=48), brief_config(batch_size=1, num_epochs=1))
    between = []
    for _ in range(34):
        between.append(pack.is_between_windows)
        pack.step()
    assert [step for step, is_between in enumerate(between) if is_between] == [0, 16, 32]


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
        for trial in self.trials[first:last]:  # as if masks had been drawn and gradients begun
            trial.dropout.fill(torch.empty(2, 3), 0.5)
        self.weights.show(self.model, first, last)
        self.model.head.weight.grad = torch.ones_like(self.model.head.weight)
        raise MemoryError

    monkeypatch.setattr(Pack, "train_slice", refuse)
    pack.step()
    assert sizes == [4, 2, 2]
    assert pack.tokens_per_slice == tokens // 2
    pack.step()
    for ours, expected in zip(pack.trials, undisturbed.trials, strict=True):
        assert ours.step == 2
        torch.testing.assert_close(ours.row, expected.row, rtol=0, atol=1e-5)


def test_a_single_trial_that_does_not_fit_says_so_and_is_as_before(
    splits: MakeSplits, join: Join, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(self: Pack, first: int, last: int, batches: Any) -> None:
        self.trials[first].dropout.fill(torch.empty(2, 3), 0.5)
        self.weights.show(self.model, first, last)
        raise MemoryError

    data = splits()
    undisturbed, pack = (join(data, brief_config()) for _ in range(2))
    undisturbed.step()
    with monkeypatch.context() as patch:
        patch.setattr(Pack, "train_slice", refuse)
        with pytest.raises(MemoryError):
            pack.step()
    assert pack.trials[0].step == 0
    pack.step()
    assert torch.equal(pack.trials[0].row, undisturbed.trials[0].row)


def test_another_error_is_not_taken_for_a_lack_of_memory(
    splits: MakeSplits, join: Join, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(self: Pack, *given: Any) -> None:
        raise RuntimeError("the products do not fit")

    monkeypatch.setattr(Pack, "train_slice", refuse)
    pack = join(splits(), *trials())
    with pytest.raises(RuntimeError, match="do not fit"):
        pack.step()
