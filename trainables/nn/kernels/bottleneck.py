"""Bottlenecks of K trials, a launch or three each in Triton and a handful of products in torch.

Suffixes: K trials, N = K*M rows, D width, A size of the bottleneck.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from trainables.nn.kernels import triton

Activation = Callable[[Tensor], Tensor]
Weights = tuple[Tensor, Tensor, Tensor, Tensor]


def add_bottleneck(
    hidden_ND: Tensor, read_ND: Tensor, weights: Weights, scale: float, activation: Activation
) -> Tensor:
    """hidden + scale (W2 f(W1 read + b1) + b2), with each trial's own weights on its segment of rows.

    Args:
        read_ND: what the bottlenecks read, which may be the hidden states themselves.
        weights: W1 (K, D, A), b1 (K, A), W2 (K, A, D), b2 (K, D), in the dtype of the rows.
    """
    if triton.serves(read_ND) and hidden_ND.dtype is read_ND.dtype:
        from trainables.nn.kernels.triton.bottleneck import can_compute

        if can_compute(read_ND, weights, activation):
            summed: Tensor = _AddBottleneck.apply(
                hidden_ND, None if read_ND is hidden_ND else read_ND, *weights, scale, activation
            )
            return summed
    change_ND = _bottleneck(read_ND, weights, activation)
    return hidden_ND + (change_ND if scale == 1 else change_ND * scale)


def _bottleneck(read_ND: Tensor, weights: Weights, activation: Activation) -> Tensor:
    down_KDA, down_bias_KA, up_KAD, up_bias_KD = weights
    rows_KMD = read_ND.reshape(len(down_KDA), -1, down_KDA.shape[1])
    inner_KMA = activation(torch.baddbmm(down_bias_KA[:, None], rows_KMD, down_KDA))
    return torch.baddbmm(up_bias_KD[:, None], inner_KMA, up_KAD).view_as(read_ND)


class _AddBottleneck(torch.autograd.Function):
    """In Triton; keeps what is read and the bottleneck before its activation."""

    @staticmethod
    def forward(
        ctx: Any,
        hidden_ND: Tensor,
        read_ND: Tensor | None,
        down_KDA: Tensor,
        down_bias_KA: Tensor,
        up_KAD: Tensor,
        up_bias_KD: Tensor,
        scale: float,
        activation: Activation,
    ) -> Tensor:
        from trainables.nn.kernels.triton import bottleneck

        weights = down_KDA, down_bias_KA, up_KAD, up_bias_KD
        hidden_ND = hidden_ND.contiguous()
        read = hidden_ND if read_ND is None else read_ND.contiguous()
        out_ND, before_NA = bottleneck.forward(hidden_ND, read, weights, scale, activation)
        ctx.save_for_backward(read, before_NA, *weights)
        ctx.scale, ctx.activation, ctx.reads_hidden = scale, activation, read_ND is None
        return out_ND

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        from trainables.nn.kernels.triton import bottleneck

        read_ND, before_NA, *weights = ctx.saved_tensors
        grad_ND = grads[0].contiguous()
        grad_read_ND, *of_weights = bottleneck.backward(
            grad_ND, read_ND, before_NA, tuple(weights), ctx.scale, ctx.activation, adds=ctx.reads_hidden
        )
        of_rows = (grad_read_ND, None) if ctx.reads_hidden else (grad_ND, grad_read_ND)
        return *of_rows, *of_weights, None, None
