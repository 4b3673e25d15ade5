"""The frozen feed-forward sub-layer, forwards and backwards, in blocks of rows that stay in the cache.

Its hidden layer is the widest tensor of a Transformer layer and is read four times in a step. Block by block, those
reads come from the cache instead of from memory, where on a CPU the activation would take three times as long.

Suffixes: N rows (word pieces of all sequences), D hidden width, I intermediate width.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

# Rows of a block on a CPU: its part of the hidden layer and of that one's gradient fit a typical second-level cache.
BLOCK_ROWS = 512

Activation = Callable[[Tensor], Tensor]


def feed_forward(hidden_ND: Tensor, weights: tuple[Tensor, Tensor, Tensor, Tensor], activation: Activation) -> Tensor:
    """W2 f(W1 x + b1) + b2 with frozen weights (W1 (I, D), b1, W2 (D, I), b2), in their dtype."""
    out_ND: Tensor = _FeedForward.apply(hidden_ND, *weights, activation)
    return out_ND


class _FeedForward(torch.autograd.Function):
    """Keeps the hidden layer before its activation."""

    @staticmethod
    def forward(
        ctx: Any, rows_ND: Tensor, up: Tensor, up_bias: Tensor, down: Tensor, down_bias: Tensor, activation: Activation
    ) -> Tensor:
        before_NI = rows_ND.new_empty(rows_ND.shape[0], up.shape[0])
        out_ND = torch.empty_like(rows_ND)
        for block in _blocks(rows_ND):
            torch.addmm(up_bias, rows_ND[block], up.t(), out=before_NI[block])
            torch.addmm(down_bias, activation(before_NI[block]), down.t(), out=out_ND[block])
        ctx.save_for_backward(before_NI, up, down)
        ctx.activation = activation
        return out_ND

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        before_NI, up, down = ctx.saved_tensors
        grad_out_ND = grads[0].contiguous()
        grad_ND = torch.empty_like(grad_out_ND)
        for block in _blocks(grad_ND):
            grad_before = _differentiate(ctx.activation, before_NI[block], grad_out_ND[block] @ down)
            torch.mm(grad_before, up, out=grad_ND[block])
        return grad_ND, None, None, None, None, None


def _blocks(rows_ND: Tensor) -> Iterator[slice]:
    size = BLOCK_ROWS if rows_ND.device.type == "cpu" else rows_ND.shape[0]
    for first in range(0, rows_ND.shape[0], size):
        yield slice(first, first + size)


def _differentiate(activation: Activation, before: Tensor, grad: Tensor) -> Tensor:
    if activation is F.gelu:  # nearly every checkpoint's; its derivative needs no second forward pass
        return torch.ops.aten.gelu_backward(grad, before)
    with torch.enable_grad():
        before = before.detach().requires_grad_()
        return torch.autograd.grad(activation(before), before, grad)[0]
