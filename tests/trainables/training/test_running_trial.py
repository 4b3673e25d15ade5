"""A trial in training: its schedule, its own optimizer, and where its epochs end."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from tests.factories import brief_config, epoch_report
from trainables.data.order import num_steps
from trainables.outcome import EpochReport
from trainables.training.optimizer import RowLayout, schedule
from trainables.training.running_trial import Job, RunningTrial

CPU = torch.device("cpu")
LENGTHS = np.full(40, 5)
NUM_DECAYED, NUM_SPARED = 12, 4
LAYOUT = RowLayout(num_decayed=NUM_DECAYED, num_trained=NUM_DECAYED + NUM_SPARED)


def running(**values: Any) -> RunningTrial:
    config = brief_config(**{"batch_size": 8, **values})
    return RunningTrial(Job(config=config, done=lambda outcome: None), LENGTHS, CPU)


def start() -> Tensor:
    return torch.randn(NUM_DECAYED + NUM_SPARED, generator=torch.Generator().manual_seed(0))


def gradients(steps: int) -> Tensor:
    """Some above and some below a norm of 1."""
    directions = torch.randn(steps, NUM_DECAYED + NUM_SPARED, generator=torch.Generator().manual_seed(1))
    return directions * torch.tensor([0.01, 10.0, 0.1, 1.0, 3.0]).repeat(steps)[:steps, None]


def report(trial: RunningTrial) -> EpochReport:
    return epoch_report(len(trial.epochs) + 1, step=trial.step)


class TestSchedule:
    @settings(deadline=None)
    @given(num_steps=st.integers(1, 300), warmup_ratio=st.sampled_from([0.0, 0.06, 0.1, 0.5, 0.99]))
    def test_it_is_transformers_linear_schedule_with_warmup(self, num_steps: int, warmup_ratio: float) -> None:
        from transformers import get_linear_schedule_with_warmup

        optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
        reference = get_linear_schedule_with_warmup(optimizer, int(warmup_ratio * num_steps), num_steps)
        for step in range(num_steps):
            assert schedule(step, num_steps, warmup_ratio) == pytest.approx(reference.get_last_lr()[0], abs=1e-12)
            optimizer.step()
            reference.step()

    def test_an_epoch_is_counted_as_the_released_code_counts(self) -> None:
        assert num_steps(3668, batch_size=32, num_epochs=5) == 573  # MRPC in its README


class TestUpdate:
    @pytest.mark.parametrize("max_grad_norm", [1.0, 1e6])
    def test_it_is_torch_s_adamw_after_its_clipping(self, max_grad_norm: float) -> None:
        trial = running(weight_decay=0.1, max_grad_norm=max_grad_norm)
        row = start()
        trial.attach(row, LAYOUT)
        decayed, spared = nn.Parameter(start()[:NUM_DECAYED].view(3, 4)), nn.Parameter(start()[NUM_DECAYED:])
        groups = [{"params": [decayed], "weight_decay": 0.1}, {"params": [spared], "weight_decay": 0.0}]
        reference = torch.optim.AdamW(groups, lr=1.0, eps=1e-6)
        for step, grads in enumerate(gradients(5)):
            decayed.grad, spared.grad = grads[:NUM_DECAYED].view(3, 4).clone(), grads[NUM_DECAYED:].clone()
            nn.utils.clip_grad_norm_([decayed, spared], max_grad_norm)
            for group in reference.param_groups:
                group["lr"] = 1e-2 * schedule(step, 10, 0.1)
            reference.step()
            trial.update(grads.clone())
            trial.step += 1
            expected = torch.cat([decayed.flatten(), spared]).detach()
            torch.testing.assert_close(row, expected, rtol=1e-6, atol=1e-7)  # the row itself was moved
            assert torch.equal(trial.row, row)
        assert (row - start()).abs().min() > 1e-3

    def test_a_trial_that_moves_to_another_row_goes_on_as_if_it_had_not(self) -> None:
        stayed, moved = running(), running()
        stayed.attach(start(), LAYOUT)
        moved.attach(start(), LAYOUT)
        left: list[Tensor] = []
        for step, grads in enumerate(gradients(6)):
            for trial in (stayed, moved):
                trial.update(grads.clone())
                trial.step += 1
            if step % 2:
                left.append(moved.row)
                moved.attach(moved.row.clone(), LAYOUT)
        assert torch.equal(moved.row, stayed.row)
        assert not torch.equal(left[0], left[-1])

    def test_two_trials_of_a_pack_move_their_own_rows_only(self) -> None:
        rows = torch.stack([start(), start()])
        first, second = running(warmup_ratio=0.0), running(learning_rate=1e-3)
        first.attach(rows[0], LAYOUT)
        second.attach(rows[1], LAYOUT)
        first.update(gradients(1)[0])
        assert not torch.equal(rows[0], start())
        assert torch.equal(rows[1], start())

    def test_a_gradient_that_is_no_number_is_not_clipped_away(self) -> None:
        trial = running(warmup_ratio=0.0)
        trial.attach(start(), LAYOUT)
        grads = gradients(1)[0]
        grads[3] = float("nan")
        trial.update(grads)
        assert trial.row.isnan().any()


class TestEpochs:
    def test_one_ends_with_its_last_step(self) -> None:
        trial = running()
        ended = []
        for _ in trial.batches:
            trial.step += 1
            if trial.has_ended_epoch:
                ended.append(trial.step)
                assert trial.steps_in_epoch == 5
                trial.epochs.append(report(trial))
                assert trial.steps_in_epoch == 0
            assert not trial.has_ended_epoch
        assert ended == trial.epoch_ends == [5, 10]

    def test_with_fewer_steps_than_epochs_one_step_ends_several(self) -> None:
        trial = running(batch_size=80, num_epochs=6)  # 3 steps
        ended = []
        for _ in trial.batches:
            trial.step += 1
            while trial.has_ended_epoch:
                ended.append(trial.step)
                trial.epochs.append(report(trial))
        assert ended == trial.epoch_ends
        assert len(ended) == 6
        assert set(ended) == {1, 2, 3}

    def test_the_order_of_rows_follows_the_seed(self) -> None:
        first, other, again = (np.concatenate(running(seed=seed).batches).tolist() for seed in (3, 4, 3))
        assert first == again != other

    def test_dropout_follows_the_seed_and_not_the_order_of_rows(self) -> None:
        masks = []
        for seed, epochs in ((3, 2), (4, 2), (3, 1)):
            mask = torch.empty(4, 9)
            running(seed=seed, num_epochs=epochs).dropout.fill(mask, 0.5)
            masks.append(mask)
        assert torch.equal(masks[0], masks[2])
        assert not torch.equal(masks[0], masks[1])

    def test_what_was_not_measured_is_not_known(self) -> None:
        trial = running()
        assert (trial.examples_per_second, trial.pack_size) == (None, None)
        trial.step, trial.training_s, trial.steps_shared = 4, 2.0, 10
        assert (trial.examples_per_second, trial.pack_size) == (16.0, 2.5)
