"""The frozen feed-forward sub-layer in blocks computes what two products and an activation compute."""

from __future__ import annotations

from unittest import mock

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
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


@st.composite
def slices(draw: st.DrawFn) -> tuple[int, list[slice]]:
    """A number of rows, and some of them as slices of equal distances: what trials' segments are filled with."""
    num_trials, distance = draw(st.integers(1, 5)), draw(st.integers(1, 12))
    filled = draw(st.lists(st.integers(1, distance), min_size=num_trials, max_size=num_trials))
    return num_trials * distance, [slice(k * distance, k * distance + rows) for k, rows in enumerate(filled)]


@settings(deadline=None)
@given(where=slices(), block_rows=st.sampled_from([1, 4, 7, 512]))
def test_rows_that_nobody_wants_are_left_out(where: tuple[int, list[slice]], block_rows: int) -> None:
    num_rows, wanted = where
    is_wanted = torch.zeros(num_rows, dtype=torch.bool)
    for part in wanted:
        is_wanted[part] = True
    hidden = random(num_rows, WIDTH, seed=7).requires_grad_()
    upstream = random(num_rows, WIDTH, seed=8) * is_wanted[:, None]  # nothing comes from what nobody reads
    expected = plain(hidden, weights(), F.gelu)
    (expected_grad,) = torch.autograd.grad(expected, hidden, upstream)
    with mock.patch.object(module, "BLOCK_ROWS", block_rows):
        ours = feed_forward(hidden, weights(), F.gelu, wanted=wanted)
        (grad,) = torch.autograd.grad(ours, hidden, upstream)
    torch.testing.assert_close(ours[is_wanted], expected[is_wanted], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(grad, expected_grad, rtol=1e-5, atol=1e-5)
    assert torch.isfinite(ours).all()


def test_small_segments_share_a_block_and_large_ones_leave_out_what_fills_them_up() -> None:
    small = [slice(0, 5), slice(8, 10), slice(16, 23)]
    assert list(module._blocks(torch.empty(24, 1), small)) == [slice(0, 23)]
    large = [slice(0, 400), slice(450, 900)]
    assert list(module._blocks(torch.empty(900, 1), large)) == large
    longer = [slice(0, 1000), slice(1200, 2400)]
    assert list(module._blocks(torch.empty(2400, 1), longer)) == [
        slice(0, 512), slice(512, 1000), slice(1200, 1712), slice(1712, 2224), slice(2224, 2400)
    ]  # fmt: skip


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
