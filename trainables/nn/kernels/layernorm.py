"""LayerNorm of a sum, with one weight for all rows or one a trial, and the same after dropout.

Sums and statistics are float32 and the result is rounded once, to the dtype of the rows, so that a packed trial equals
the same trial alone to the bit. The number of operations does not grow with the number of trials.

Suffixes: K trials, N = K*M rows, D width.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from trainables.nn.kernels.philox import DropoutKeys, row_mask


def residual_layernorm(x_ND: Tensor, residual_ND: Tensor | None, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
    """LN(x + residual), with weight and bias (D,), or (K, D) for the K segments of rows; in the dtype of x.

    Gradients of weight and bias are summed in float32.
    """
    normed: Tensor = _LayerNorm.apply(x_ND, residual_ND, weight, bias, eps, None)
    return normed


def dropout_residual_layernorm(
    x_ND: Tensor,
    residual_ND: Tensor | None,
    weight: Tensor,
    bias: Tensor,
    eps: float,
    keys: DropoutKeys,
    site: int,
    rates_K: Tensor | None = None,
) -> Tensor:
    """`residual_layernorm` of what `dropout` makes of x, whose elements are rounded to the dtype of x in between."""
    drawn_from = keys, site, keys.rates_K if rates_K is None else rates_K
    normed: Tensor = _LayerNorm.apply(x_ND, residual_ND, weight, bias, eps, drawn_from)
    return normed


class _LayerNorm(torch.autograd.Function):
    """Keeps the normalised rows, in their dtype, and each one's 1 / standard deviation."""

    @staticmethod
    def forward(
        ctx: Any,
        x_ND: Tensor,
        residual_ND: Tensor | None,
        weight: Tensor,
        bias: Tensor,
        eps: float,
        drawn_from: tuple[DropoutKeys, int, Tensor] | None,
    ) -> Tensor:
        width = x_ND.shape[1]
        total_ND = x_ND.float()
        if drawn_from is not None:
            keys, site, rates_K = drawn_from
            total_ND = (total_ND * row_mask(keys, width, site, rates_K)).to(x_ND.dtype).float()
        if residual_ND is not None:
            total_ND = total_ND + residual_ND
        normed_ND, _, rstd_N1 = torch.native_layer_norm(total_ND, (width,), None, None, eps)
        ctx.save_for_backward(normed_ND.to(x_ND.dtype), rstd_N1, weight)
        ctx.drawn_from, ctx.bias_shape = drawn_from, bias.shape
        return _scale(normed_ND, weight, bias).to(x_ND.dtype)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        normed_ND, rstd_N1, weight = ctx.saved_tensors
        grad_ND, normed_ND = grads[0].float(), normed_ND.float()
        grad_x = grad_residual = grad_weight = grad_bias = None
        if ctx.needs_input_grad[2]:
            grad_weight = _sum_rows(grad_ND * normed_ND, weight.shape)
        if ctx.needs_input_grad[3]:
            grad_bias = _sum_rows(grad_ND, ctx.bias_shape)
        if ctx.needs_input_grad[0] or ctx.needs_input_grad[1]:
            scaled_ND = _scale(grad_ND, weight, None)
            along_N1 = (scaled_ND * normed_ND).mean(dim=1, keepdim=True)
            scaled_ND = scaled_ND - scaled_ND.mean(dim=1, keepdim=True)
            grad_x = grad_residual = scaled_ND.addcmul_(normed_ND, along_N1, value=-1).mul_(rstd_N1).to(grads[0].dtype)
            if ctx.drawn_from is not None and ctx.needs_input_grad[0]:
                keys, site, rates_K = ctx.drawn_from
                grad_x = (grad_residual * row_mask(keys, grad_ND.shape[1], site, rates_K)).to(grad_residual.dtype)
        return grad_x, grad_residual if ctx.needs_input_grad[1] else None, grad_weight, grad_bias, None, None


def _scale(rows_ND: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """rows * weight + bias in float32, where the two may be one for all or one a trial."""
    width = rows_ND.shape[1]
    weight_K1D = weight.float().view(-1, 1, width)
    if bias is None:
        return (rows_ND.view(len(weight_K1D), -1, width) * weight_K1D).view_as(rows_ND)
    bias_K1D = bias.float().view(-1, 1, width)
    rows_KMD = rows_ND.view(max(len(weight_K1D), len(bias_K1D)), -1, width)
    return torch.addcmul(bias_K1D, rows_KMD, weight_K1D).view_as(rows_ND)


def _sum_rows(rows_ND: Tensor, shape: torch.Size) -> Tensor:
    """Sums over all rows (D,), or over each trial's (K, D)."""
    return rows_ND.view(-1 if len(shape) > 1 else 1, *_segments(rows_ND, shape)).sum(dim=1).view(shape)


def _segments(rows_ND: Tensor, shape: torch.Size) -> tuple[int, int]:
    num_trials = shape[0] if len(shape) > 1 else 1
    return rows_ND.shape[0] // num_trials, rows_ND.shape[1]
