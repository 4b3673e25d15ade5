"""AdamW of a pack is torch's, trial by trial, after torch's clipping."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from tests.trainables.nn.kernels.conftest import InTorch
from trainables.nn.kernels.adamw import adamw_

SIZE, DECAYED = 1003, 700
RATES, DECAYS, NORMS = [1e-3, 3e-3, 1e-2, 0.0], [0.0, 0.01, 0.1, 0.1], [1.0, 0.1, 1e9, 1.0]


class Pack:
    """Four trials' numbers and moments, and the same ones of torch's optimizer."""

    def __init__(self) -> None:
        self.generator = torch.Generator().manual_seed(0)
        self.values = torch.randn(4, SIZE, generator=self.generator)
        self.first, self.second = torch.zeros(4, SIZE), torch.zeros(4, SIZE)
        self.seen = self.values.bfloat16()
        self.parameters = [
            [nn.Parameter(row[:DECAYED].clone()), nn.Parameter(row[DECAYED:].clone())] for row in self.values
        ]
        self.optimizers = [
            torch.optim.AdamW(
                [{"params": [part], "weight_decay": decay} for part, decay in zip(parts, (decay, 0.0), strict=True)],
                lr=rate,
                eps=1e-6,
            )
            for parts, rate, decay in zip(self.parameters, RATES, DECAYS, strict=True)
        ]

    def step(self, grads: Tensor, step: int) -> Tensor:
        """Ours; the gradients as they were left."""
        left = grads.clone()
        adamw_(
            self.values,
            left,
            self.first,
            self.second,
            num_decayed=DECAYED,
            rates_K=torch.tensor(RATES),
            decays_K=torch.tensor(DECAYS),
            max_norms_K=torch.tensor(NORMS),
            steps_K=torch.full((4,), step),
            seen_KP=self.seen,
        )
        return left

    def step_in_torch(self, grads: Tensor) -> Tensor:
        for parts, optimizer, norm, row in zip(self.parameters, self.optimizers, NORMS, grads, strict=True):
            parts[0].grad, parts[1].grad = row[:DECAYED].clone(), row[DECAYED:].clone()
            nn.utils.clip_grad_norm_(parts, norm)
            optimizer.step()
        return torch.stack(
            [torch.cat([part.grad for part in parts if part.grad is not None]) for parts in self.parameters]
        )

    @property
    def expected(self) -> Tensor:
        return torch.stack([torch.cat([part.detach() for part in parts]) for parts in self.parameters])


def test_twenty_steps_are_those_of_torch(path: str) -> None:
    pack = Pack()
    before = pack.values.clone()
    for step in range(1, 21):
        grads = torch.randn(4, SIZE, generator=pack.generator) * 10 ** (-step / 5)
        left, expected_left = pack.step(grads, step), pack.step_in_torch(grads)
        torch.testing.assert_close(left, expected_left, rtol=1e-6, atol=0)
    torch.testing.assert_close(pack.values, pack.expected, rtol=1e-6, atol=1e-7)
    torch.testing.assert_close(pack.seen, pack.values.bfloat16(), rtol=0, atol=0)
    assert (pack.values - before)[:3].abs().min(dim=1).values.max() > 1e-4
    assert torch.equal(pack.values[3], before[3])  # a rate of 0 moves and decays nothing


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_gradient_that_is_not_finite_ruins_its_trial_alone(path: str, bad: float) -> None:
    pack, healthy = Pack(), Pack()
    grads = torch.randn(4, SIZE, generator=torch.Generator().manual_seed(1))
    healthy.step(grads, 1)
    grads[1, 5] = bad
    left = pack.step(grads, 1)
    assert left[1, 5].isnan()
    assert pack.values[1].isnan().any()
    others = [0, 2, 3]
    assert torch.equal(pack.values[others], healthy.values[others])


def test_c_and_torch_agree(in_torch: InTorch) -> None:
    ours, other = Pack(), Pack()
    for step in range(1, 6):
        grads = torch.randn(4, SIZE, generator=torch.Generator().manual_seed(step))
        ours.step(grads, step)
        with in_torch():
            other.step(grads, step)
    for mine, expected in ((ours.values, other.values), (ours.first, other.first), (ours.second, other.second)):
        torch.testing.assert_close(mine, expected, rtol=1e-6, atol=1e-7)
