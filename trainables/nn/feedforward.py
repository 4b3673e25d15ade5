"""The frozen feed-forward sub-layer, forwards and backwards, in blocks of rows that stay in the cache.

Its hidden layer is the widest tensor of a Transformer layer and is read four times in a step. Block by block, those
reads come from the cache instead of from memory, where on a CPU the activation would take three times as long.

Suffixes: N rows (word pieces of all sequences), D hidden width, I intermediate width, U = 2I where it is gated.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from trainables.nn.kernels.activation import Activation, activate, differentiate
from trainables.nn.kernels.frozen_product import linear

# Rows of a block on a CPU: its part of the hidden layer and of that one's gradient fit a typical second-level cache.
BLOCK_ROWS = 512


Weights = tuple[Tensor, Tensor | None, Tensor, Tensor | None]


def feed_forward(
    hidden_ND: Tensor,
    weights: Weights,
    activation: Activation,
    *,
    is_gated: bool = False,
    wanted: Sequence[slice] | None = None,
) -> Tensor:
    """W2 f(W1 x + b1) + b2 with frozen weights (W1 (I, D), b1, W2 (D, I), b2), in their dtype; biases may be None.

    Where it is gated, W1 is (2I, D), and the first half of what it gives is multiplied by the second after f. Rows in
    no slice of `wanted`, in ascending order, may come out as zeros; None wants all.
    """
    out_ND: Tensor = _FeedForward.apply(hidden_ND, *weights, activation, is_gated, wanted)
    return out_ND


def gate(before_NU: Tensor, activation: Activation) -> Tensor:
    """The first half of columns after an activation, times the second half."""
    activated, factors = before_NU.chunk(2, dim=-1)
    return activation(activated) * factors


class _FeedForward(torch.autograd.Function):
    """Keeps the hidden layer before its activation, block by block."""

    @staticmethod
    def forward(
        ctx: Any,
        rows_ND: Tensor,
        up: Tensor,
        up_bias: Tensor | None,
        down: Tensor,
        down_bias: Tensor | None,
        activation: Activation,
        is_gated: bool,
        wanted: Sequence[slice] | None,
    ) -> Tensor:
        kept, out, end = [], [], 0
        blocks = list(_blocks(rows_ND, wanted))
        for block in blocks:
            out += _zeros(rows_ND, end, block.start, down.shape[0])
            before = linear(rows_ND[block], up, up_bias)
            after = _gate(before, activation) if is_gated else activate(before, activation)
            out.append(linear(after, down, down_bias))
            end = block.stop
            if ctx.needs_input_grad[0]:
                kept.append(before)
        out += _zeros(rows_ND, end, len(rows_ND), down.shape[0])
        ctx.save_for_backward(up, down, *kept)
        ctx.activation, ctx.is_gated, ctx.blocks = activation, is_gated, blocks
        return torch.cat(out) if len(out) > 1 else out[0]

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        up, down, *kept = ctx.saved_tensors
        grad_out_ND = grads[0].contiguous()
        grad_ND = torch.empty_like(grad_out_ND)
        end = 0
        for block, before in zip(ctx.blocks, kept, strict=True):
            grad_ND[end : block.start] = 0
            end = block.stop
            differentiated = _differentiate_gate if ctx.is_gated else differentiate
            torch.mm(differentiated(before, grad_out_ND[block] @ down, ctx.activation), up, out=grad_ND[block])
        grad_ND[end:] = 0
        return grad_ND, *(None for _ in ctx.needs_input_grad[1:])


def _gate(before_NU: Tensor, activation: Activation) -> Tensor:
    activated, factors = before_NU.chunk(2, dim=1)
    return activate(activated.contiguous(), activation) * factors


def _differentiate_gate(before_NU: Tensor, grad_NI: Tensor, activation: Activation) -> Tensor:
    """The gradient before a gate, of that behind it."""
    activated, factors = before_NU.chunk(2, dim=1)
    activated = activated.contiguous()
    grad_activated = differentiate(activated, grad_NI * factors, activation)
    return torch.cat([grad_activated, grad_NI * activate(activated, activation)], dim=1)


def _blocks(rows_ND: Tensor, wanted: Sequence[slice] | None) -> Iterator[slice]:
    """On a CPU all wanted rows, at most so many at a time, and between two slices of a block what nobody wants.

    Elsewhere all rows at once: a pass more over them would cost what is left out.
    """
    if rows_ND.device.type != "cpu":
        yield slice(0, len(rows_ND))
        return
    first = last = 0
    for part in [slice(0, len(rows_ND))] if wanted is None else wanted:
        if last > first and part.stop - first > BLOCK_ROWS:
            yield slice(first, last)
            first = last
        if last == first:
            first = part.start
        last = part.stop
        while last - first > BLOCK_ROWS:
            yield slice(first, first + BLOCK_ROWS)
            first += BLOCK_ROWS
    if last > first:
        yield slice(first, last)


def _zeros(rows_ND: Tensor, first: int, last: int, width: int) -> list[Tensor]:
    """What stands in the place of rows first..last-1, which nobody wants, if there are any."""
    return [rows_ND.new_zeros(last - first, width)] if last > first else []
