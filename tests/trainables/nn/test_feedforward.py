"""The frozen feed-forward sub-layer in blocks computes what two products and an activation compute."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from trainables.nn import feedforward as module
from trainables.nn.feedforward import Activation, feed_forward
from trainables.nn.layers import ACTIVATIONS

WIDTH, INNER = 6, 10
Weights = tuple[Tensor, Tensor, Tensor, Tensor]


def random(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def weights(dtype: torch.dtype = torch.float32) -> Weights:
    shapes = ((INNER, WIDTH), (INNER,), (WIDTH, INNER), (WIDTH,))
    up, up_bias, down, down_bias = (random(*shape, seed=k).to(dtype) for k, shape in enumerate(shapes))
    return up, up_bias, down, down_bias


def plain(hidden: Tensor, frozen: Weights, activation: Activation) -> Tensor:
    up, up_bias, down, down_bias = frozen
    return F.linear(activation(F.linear(hidden, up, up_bias)), down, down_bias)


def with_gradient(output: Tensor, hidden: Tensor) -> tuple[Tensor, Tensor]:
    upstream = random(*output.shape, seed=8).to(output.dtype)
    return output.detach(), torch.autograd.grad(output, hidden, upstream)[0]


@pytest.mark.parametrize("block_rows", [1, 4, 15, 512])
@pytest.mark.parametrize("name", ACTIVATIONS)
def test_values_and_gradients_are_those_of_the_plain_layer(
    name: str, block_rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "BLOCK_ROWS", block_rows)
    hidden = random(15, WIDTH, seed=7).requires_grad_()
    ours = with_gradient(feed_forward(hidden, weights(), ACTIVATIONS[name]), hidden)
    for mine, expected in zip(ours, with_gradient(plain(hidden, weights(), ACTIVATIONS[name]), hidden), strict=True):
        assert mine.shape == (15, WIDTH)
        torch.testing.assert_close(mine, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", ["gelu", "gelu_new"])
def test_bf16_stays_near_float32(name: str) -> None:
    hidden = random(15, WIDTH, seed=7).requires_grad_()
    rounded = hidden.detach().bfloat16().requires_grad_()
    ours = with_gradient(feed_forward(rounded, weights(torch.bfloat16), ACTIVATIONS[name]), rounded)
    for mine, expected in zip(ours, with_gradient(plain(hidden, weights(), ACTIVATIONS[name]), hidden), strict=True):
        assert mine.dtype == torch.bfloat16
        torch.testing.assert_close(mine.float(), expected, rtol=0.05, atol=0.15)


def test_a_gradient_that_is_not_contiguous_is_understood() -> None:
    hidden = random(15, WIDTH, seed=7).requires_grad_()
    (ours,) = torch.autograd.grad(feed_forward(hidden, weights(), F.gelu).sum(), hidden)  # one expanded number
    (expected,) = torch.autograd.grad(plain(hidden, weights(), F.gelu).sum(), hidden)
    torch.testing.assert_close(ours, expected, rtol=1e-5, atol=1e-5)


def test_evaluation_keeps_nothing_for_a_backward_pass() -> None:
    with torch.inference_mode():
        output = feed_forward(random(15, WIDTH, seed=7), weights(), F.gelu)
    assert output.grad_fn is None
    torch.testing.assert_close(output, plain(random(15, WIDTH, seed=7), weights(), F.gelu))


@pytest.mark.parametrize("block_rows", [4, 512])
@pytest.mark.parametrize("has_bias", [True, False])
@pytest.mark.parametrize("name", ["gelu", "silu"])
def test_a_gated_layer_multiplies_the_activation_by_the_other_half(
    name: str, has_bias: bool, block_rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "BLOCK_ROWS", block_rows)
    hidden = random(15, WIDTH, seed=7).requires_grad_()
    shapes = ((2 * INNER, WIDTH), (2 * INNER,), (WIDTH, INNER), (WIDTH,))
    up, up_bias, down, down_bias = (random(*shape, seed=k) for k, shape in enumerate(shapes))
    biases = (up_bias, down_bias) if has_bias else (None, None)
    before = F.linear(hidden, up, biases[0])
    expected = F.linear(ACTIVATIONS[name](before[:, :INNER]) * before[:, INNER:], down, biases[1])
    weights = (up, biases[0], down, biases[1])
    ours = with_gradient(feed_forward(hidden, weights, ACTIVATIONS[name], is_gated=True), hidden)
    for mine, theirs in zip(ours, with_gradient(expected, hidden), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-5, atol=1e-5)
