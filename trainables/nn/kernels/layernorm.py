"""LayerNorm of a sum, with one weight for all rows or one a trial, and the same after dropout.

Sums and statistics are float32 and the result is rounded once, to the dtype of the rows, so that a packed trial equals
the same trial alone to the bit. The number of operations does not grow with the number of trials.

Suffixes: K trials, N = K*M rows, D width.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from trainables.nn.kernels import native, triton
from trainables.nn.kernels.philox import DropoutKeys, native_keys, row_mask

_DrawnFrom = tuple[DropoutKeys, int, Tensor]  # keys, site and rates of masks


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
        drawn_from: _DrawnFrom | None,
    ) -> Tensor:
        is_kept = any(ctx.needs_input_grad)
        forward = _forward if native.library_for(x_ND) is None else _native_forward
        if triton.serves(x_ND):
            from trainables.nn.kernels.triton import layernorm as in_triton

            forward = in_triton.forward
        out_ND, normed_ND, rstd_N1 = forward(x_ND, residual_ND, weight, bias, eps, drawn_from, is_kept)
        ctx.save_for_backward(normed_ND, rstd_N1, weight)
        ctx.drawn_from, ctx.bias_shape, ctx.bias_dtype = drawn_from, bias.shape, bias.dtype
        return out_ND

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        normed_ND, rstd_N1, weight = ctx.saved_tensors
        needed = ctx.needs_input_grad[:4]
        kept = grads[0], normed_ND, rstd_N1, weight, ctx.bias_shape, ctx.drawn_from, needed
        if triton.serves(grads[0]):
            from trainables.nn.kernels.triton import layernorm as in_triton

            return *in_triton.backward(*kept, ctx.bias_dtype), None, None
        backward = _backward if native.library_for(grads[0]) is None else _native_backward
        return *backward(*kept), None, None


_Gradients = tuple[Tensor | None, Tensor | None, Tensor | None, Tensor | None]


def _forward(
    x_ND: Tensor,
    residual_ND: Tensor | None,
    weight: Tensor,
    bias: Tensor,
    eps: float,
    drawn_from: _DrawnFrom | None,
    is_kept: bool,
) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """The result, and what is kept for the gradient."""
    total_ND = x_ND.float()
    if drawn_from is not None:
        keys, site, rates_K = drawn_from
        total_ND = (total_ND * row_mask(keys, x_ND.shape[1], site, rates_K)).to(x_ND.dtype).float()
    if residual_ND is not None:
        total_ND = total_ND + residual_ND
    normed_ND, _, rstd_N1 = torch.native_layer_norm(total_ND, (x_ND.shape[1],), None, None, eps)
    out_ND = _scale(normed_ND, weight, bias).to(x_ND.dtype)
    return out_ND, *((normed_ND.to(x_ND.dtype), rstd_N1) if is_kept else (None, None))


def _backward(
    grad_ND: Tensor,
    normed_ND: Tensor,
    rstd_N1: Tensor,
    weight: Tensor,
    bias_shape: torch.Size,
    drawn_from: _DrawnFrom | None,
    needed: tuple[bool, ...],
) -> _Gradients:
    """The gradients of x, residual, weight and bias that are needed."""
    dtype, width = grad_ND.dtype, grad_ND.shape[1]
    grad_ND, normed_ND = grad_ND.float(), normed_ND.float()
    grad_x = grad_residual = None
    grad_weight = _sum_rows(grad_ND * normed_ND, weight.shape) if needed[2] else None
    grad_bias = _sum_rows(grad_ND, bias_shape) if needed[3] else None
    if needed[0] or needed[1]:
        scaled_ND = _scale(grad_ND, weight, None)
        along_N1 = (scaled_ND * normed_ND).mean(dim=1, keepdim=True)
        scaled_ND = scaled_ND - scaled_ND.mean(dim=1, keepdim=True)
        grad_x = grad_residual = scaled_ND.addcmul_(normed_ND, along_N1, value=-1).mul_(rstd_N1).to(dtype)
        if drawn_from is not None:
            keys, site, rates_K = drawn_from
            grad_x = (grad_residual * row_mask(keys, width, site, rates_K)).to(dtype)
    return grad_x if needed[0] else None, grad_residual if needed[1] else None, grad_weight, grad_bias


def _native_forward(
    x_ND: Tensor,
    residual_ND: Tensor | None,
    weight: Tensor,
    bias: Tensor,
    eps: float,
    drawn_from: _DrawnFrom | None,
    is_kept: bool,
) -> tuple[Tensor, Tensor | None, Tensor | None]:
    library = native.library_for(x_ND)
    assert library is not None
    x_ND, residual_ND = x_ND.contiguous(), None if residual_ND is None else residual_ND.to(x_ND.dtype).contiguous()
    weight, bias = _in_rows(weight), _in_rows(bias)
    out_ND = torch.empty_like(x_ND)
    normed_ND = torch.empty_like(x_ND) if is_kept else None
    rstd_N1 = torch.empty(len(x_ND), 1) if is_kept else None
    code = library.layernorm_forward(
        x_ND.dtype is torch.bfloat16,
        *x_ND.shape,
        _num_trials(weight, bias, drawn_from),
        *native.addresses(x_ND, residual_ND, weight),
        _step(weight),
        *native.addresses(bias),
        _step(bias),
        eps,
        *native.addresses(out_ND, normed_ND, rstd_N1),
        None if drawn_from is None else native_keys(*drawn_from),
    )
    native.check(code)
    return out_ND, normed_ND, rstd_N1


def _native_backward(
    grad_ND: Tensor,
    normed_ND: Tensor,
    rstd_N1: Tensor,
    weight: Tensor,
    bias_shape: torch.Size,
    drawn_from: _DrawnFrom | None,
    needed: tuple[bool, ...],
) -> _Gradients:
    library = native.library_for(grad_ND)
    assert library is not None
    grad_ND, width, weight_shape = grad_ND.contiguous(), grad_ND.shape[1], weight.shape
    weight = _in_rows(weight)
    num_trials = _num_trials(weight, torch.empty(bias_shape, device="meta"), drawn_from)
    drops = drawn_from is not None
    grad_x = torch.empty_like(grad_ND) if needed[0] and (drops or not needed[1]) else None
    grad_residual = torch.empty_like(grad_ND) if needed[1] else None
    grad_weight, grad_bias = (torch.empty(num_trials, width) if need else None for need in needed[2:])
    code = library.layernorm_backward(
        grad_ND.dtype is torch.bfloat16,
        *grad_ND.shape,
        num_trials,
        *native.addresses(grad_ND, normed_ND, rstd_N1, weight),
        _step(weight),
        *native.addresses(grad_x, grad_residual, grad_weight, grad_bias),
        None if drawn_from is None else native_keys(*drawn_from),
    )
    native.check(code)
    if needed[0] and grad_x is None:
        grad_x = grad_residual
    return grad_x, grad_residual, _of_shape(grad_weight, weight_shape), _of_shape(grad_bias, bias_shape)


def _num_trials(weight: Tensor, bias: Tensor, drawn_from: _DrawnFrom | None) -> int:
    """The segments of rows that have something of their own."""
    if drawn_from is not None:
        return len(drawn_from[0].seeds_K)
    return max(each.numel() // each.shape[-1] for each in (weight, bias))


def _in_rows(weight: Tensor) -> Tensor:
    """In float32, each trial's numbers side by side; the trials' rows may lie apart, as a pack's weights do."""
    weight = weight.float()
    return weight if weight.stride(-1) == 1 else weight.contiguous()


def _step(weight: Tensor) -> int:
    """From one trial's weight to the next one's."""
    return weight.stride(0) if weight.numel() > weight.shape[-1] else 0


def _of_shape(grad_KD: Tensor | None, shape: torch.Size) -> Tensor | None:
    """Sums of each trial's rows as the gradient of a tensor of this shape."""
    if grad_KD is None or grad_KD.numel() == shape.numel():
        return grad_KD if grad_KD is None else grad_KD.view(shape)
    return grad_KD.sum(dim=0).view(shape)


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
    width = rows_ND.shape[1]
    return rows_ND.view(shape.numel() // width, -1, width).sum(dim=1).view(shape)
