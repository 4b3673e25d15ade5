"""Products with frozen weights: nothing is kept for the gradient but the weights themselves.

On a CPU oneDNN adds the bias while it computes a product in bf16; by way of `addmm` torch writes the bias into the
result first and has it read again, which costs 5 to 8 % of a product.

Suffixes: N rows, I and O the widths in and out.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor


def frozen_linear(rows_NI: Tensor, weight_OI: Tensor, bias_O: Tensor | None) -> Tensor:
    """W x + b of every row (N, O), or W x, with a gradient for the rows alone; all in one dtype."""
    product: Tensor = _FrozenLinear.apply(rows_NI, weight_OI, bias_O)
    return product


def linear(rows_NI: Tensor, weight_OI: Tensor, bias_O: Tensor | None) -> Tensor:
    """The same where no gradient is asked for."""
    if rows_NI.dtype is torch.bfloat16 and rows_NI.device.type == "cpu" and _HAS_FUSED_BIAS:
        product: Tensor = torch.ops.mkldnn._linear_pointwise(rows_NI, weight_OI, bias_O, "none", [], "")
        return product
    return F.linear(rows_NI, weight_OI, bias_O)


class _FrozenLinear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, rows_NI: Tensor, weight_OI: Tensor, bias_O: Tensor | None) -> Tensor:
        ctx.save_for_backward(weight_OI)
        return linear(rows_NI, weight_OI, bias_O)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, None, None]:
        (weight_OI,) = ctx.saved_tensors
        return grads[0] @ weight_OI if ctx.needs_input_grad[0] else None, None, None


def _has_fused_bias() -> bool:
    """Whether this torch and CPU have oneDNN's product in bf16; it is no part of torch's documented interface."""
    if not torch.backends.mkldnn.is_available() or not hasattr(torch.ops.mkldnn, "_linear_pointwise"):
        return False
    try:
        one = torch.ones(1, 1, dtype=torch.bfloat16)
        return bool(torch.ops.mkldnn._linear_pointwise(one, one, one[0], "none", [], "") == 2)
    except RuntimeError:
        return False


_HAS_FUSED_BIAS = _has_fused_bias()
