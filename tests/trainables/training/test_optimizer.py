"""AdamW of a pack: each trial's step is the one `torch.optim.AdamW` takes after clipping, whoever steps beside it."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from trainables.config import TrialConfig
from trainables.data.order import num_steps
from trainables.nn.kernels import native
from trainables.training.optimizer import EPSILON, RowLayout, bytes_per_trial, schedule, update

NUM_DECAYED, NUM_SPARED = 12, 4
LAYOUT = RowLayout(num_decayed=NUM_DECAYED, num_trained=NUM_DECAYED + NUM_SPARED)
NUM_STEPS = 10


@pytest.fixture(params=["compiled", "torch"], autouse=True)
def path(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Both ways of computing it; without a compiler the same one twice."""
    if request.param == "torch":
        monkeypatch.setattr(native, "library", lambda: None)
    return str(request.param)


def config(**values: Any) -> TrialConfig:
    fixed = {"learning_rate": 1e-2, "batch_size": 8, "num_epochs": 2} | values
    return TrialConfig(task="any", backbone="any", method="adapter", **fixed)


def start(num_trials: int = 1) -> Tensor:
    return torch.randn(num_trials, LAYOUT.num_trained, generator=torch.Generator().manual_seed(0))


def gradients(steps: int, num_trials: int = 1) -> Tensor:
    """(steps, K, P), some above and some below a norm of 1."""
    generator = torch.Generator().manual_seed(1)
    directions = torch.randn(steps, num_trials, LAYOUT.num_trained, generator=generator)
    return directions * torch.tensor([0.01, 10.0, 0.1, 1.0, 3.0]).repeat(steps)[:steps, None, None]


def train(configs: list[TrialConfig], rows: Tensor, grads: Tensor) -> Tensor:
    """The rows after as many steps as there are gradients."""
    moments = torch.zeros_like(rows), torch.zeros_like(rows)
    for step, each in enumerate(grads):
        update(rows, each.clone(), moments, LAYOUT, [(own, step, NUM_STEPS) for own in configs])
    return rows


def reference(own: TrialConfig, row: Tensor, grads: Tensor) -> Tensor:
    decayed, spared = nn.Parameter(row[:NUM_DECAYED].view(3, 4).clone()), nn.Parameter(row[NUM_DECAYED:].clone())
    groups = [{"params": [decayed], "weight_decay": own.weight_decay}, {"params": [spared], "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=1.0, eps=EPSILON)
    for step, each in enumerate(grads):
        decayed.grad, spared.grad = each[:NUM_DECAYED].view(3, 4).clone(), each[NUM_DECAYED:].clone()
        nn.utils.clip_grad_norm_([decayed, spared], own.max_grad_norm)
        for group in optimizer.param_groups:
            group["lr"] = own.learning_rate * schedule(step, NUM_STEPS, own.warmup_ratio)
        optimizer.step()
    return torch.cat([decayed.flatten(), spared]).detach()


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
        own = config(weight_decay=0.1, max_grad_norm=max_grad_norm)
        rows = train([own], start(), gradients(5))
        torch.testing.assert_close(rows[0], reference(own, start()[0], gradients(5)[:, 0]), rtol=1e-6, atol=1e-7)
        assert (rows - start()).abs().min() > 1e-3

    def test_each_trial_of_a_pack_has_its_own_rate_decay_and_clipping(self) -> None:
        configs = [
            config(weight_decay=0.1),
            config(learning_rate=1e-3, warmup_ratio=0.5, max_grad_norm=0.1),
            config(learning_rate=3e-2, warmup_ratio=0.0, weight_decay=0.5, max_grad_norm=1e6),
        ]
        rows = train(configs, start(3), gradients(5, 3))
        for place, own in enumerate(configs):
            expected = reference(own, start(3)[place], gradients(5, 3)[:, place])
            torch.testing.assert_close(rows[place], expected, rtol=1e-6, atol=1e-7)

    def test_a_trial_steps_to_the_bit_as_it_does_alone(self) -> None:
        configs = [config(learning_rate=rate) for rate in (1e-2, 1e-3, 1e-4)]
        together = train(configs, start(3), gradients(5, 3))
        for place, own in enumerate(configs):
            alone = train([own], start(3)[place : place + 1], gradients(5, 3)[:, place : place + 1])
            assert torch.equal(together[place], alone[0])

    def test_trials_may_stand_at_different_steps(self) -> None:
        """Corrections of moments and the schedule are each trial's own."""
        own, grads = config(), gradients(6)[:, 0]
        rows, moments = start().repeat(2, 1), (torch.zeros(2, 16), torch.zeros(2, 16))
        for step in range(4):  # the first trial has taken two steps when the second begins
            if step < 2:
                single = moments[0][:1], moments[1][:1]
                update(rows[:1], grads[step : step + 1].clone(), single, LAYOUT, [(own, step, NUM_STEPS)])
                continue
            both = torch.stack([grads[step], grads[step - 2]])
            update(rows, both, moments, LAYOUT, [(own, step, NUM_STEPS), (own, step - 2, NUM_STEPS)])
        for row, steps in zip(rows, (4, 2), strict=True):
            torch.testing.assert_close(row, reference(own, start()[0], grads[:steps]), rtol=1e-6, atol=1e-7)

    def test_a_gradient_that_is_no_number_is_not_clipped_away_and_harms_nobody_else(self) -> None:
        grads = gradients(1, 2)
        expected = train([config(warmup_ratio=0.0)] * 2, start(2), grads)[1].clone()
        grads[0, 0, 3] = float("nan")
        rows = train([config(warmup_ratio=0.0)] * 2, start(2), grads)
        assert rows[0].isnan().all()
        assert torch.equal(rows[1], expected)

    def test_what_products_see_is_kept_up_to_date(self) -> None:
        rows, moments = start(2), (torch.zeros(2, 16), torch.zeros(2, 16))
        seen = rows.bfloat16()
        trials = [(config(warmup_ratio=0.0), 0, NUM_STEPS)] * 2
        update(rows, gradients(1, 2)[0], moments, LAYOUT, trials, seen)
        assert not torch.equal(rows, start(2))
        assert torch.equal(seen, rows.bfloat16())

    def test_the_first_step_of_a_warm_up_moves_nothing_and_is_remembered(self) -> None:
        rows, moments = start(), (torch.zeros(1, 16), torch.zeros(1, 16))
        update(rows, gradients(1)[0], moments, LAYOUT, [(config(), 0, NUM_STEPS)])
        assert torch.equal(rows, start())
        assert moments[0].all()
        assert moments[1].all()


def test_a_trial_costs_masters_gradients_and_moments_and_the_copy_that_products_see() -> None:
    assert bytes_per_trial(10, torch.float32) == 160
    assert bytes_per_trial(10, torch.bfloat16) == 180
