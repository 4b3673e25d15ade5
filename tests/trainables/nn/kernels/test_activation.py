"""Activations that are looked up are torch's own, of every number there is."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from trainables.nn.kernels.activation import activate, differentiate
from trainables.nn.layers import ACTIVATIONS

by_name = pytest.mark.parametrize("name", ACTIVATIONS)


def every_number() -> Tensor:
    """All of bf16: both zeros, the infinities, what is not a number, and the rest."""
    return torch.arange(-(2**15), 2**15).to(torch.int16).view(torch.bfloat16)


@by_name
def test_of_every_number_they_are_what_torch_computes(name: str, path: str) -> None:
    numbers = every_number()
    torch.testing.assert_close(
        activate(numbers, ACTIVATIONS[name]), ACTIVATIONS[name](numbers), rtol=0, atol=0, equal_nan=True
    )


@by_name
def test_gradients_are_rounded_once(name: str) -> None:
    numbers = every_number()
    numbers = numbers[numbers.abs() < 100]
    grad = torch.randn(len(numbers), generator=torch.Generator().manual_seed(0)).bfloat16()
    looked_up = differentiate(numbers, grad, ACTIVATIONS[name])
    in_float32 = numbers.float().requires_grad_()
    (exact,) = torch.autograd.grad(ACTIVATIONS[name](in_float32), in_float32, grad.float())
    torch.testing.assert_close(looked_up.float(), exact, rtol=2**-8, atol=1e-6)


def test_any_number_of_elements_is_taken_and_float32_is_torch_s(path: str) -> None:
    gelu = ACTIVATIONS["gelu"]
    for shape in ((1,), (63,), (3, 65), (0,), (128, 7)):
        for dtype in (torch.bfloat16, torch.float32):
            numbers = torch.randn(*shape, generator=torch.Generator().manual_seed(1)).to(dtype)
            torch.testing.assert_close(activate(numbers, gelu), gelu(numbers), rtol=0, atol=0)
            ones = torch.ones_like(numbers)
            expected = torch.ops.aten.gelu_backward(ones, numbers)
            torch.testing.assert_close(differentiate(numbers, ones, gelu), expected, rtol=2**-7, atol=1e-6)
