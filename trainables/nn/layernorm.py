"""LayerNorm of a sum, with one weight for all sequences or one a trial.

Suffixes: K trials, S = K*B sequences, L length, D width.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn


class LayerNorm(nn.Module):
    """LayerNorm with one weight for all (D,), or one a trial (K, D)."""

    def __init__(self, width: int, eps: float) -> None:
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(width), requires_grad=False)
        self.bias = nn.Parameter(torch.zeros(width), requires_grad=False)

    @staticmethod
    def stacked(num_trials: int, width: int, device: torch.device, eps: float = 1e-5) -> LayerNorm:
        """New LayerNorms, one a trial, trained."""
        layernorm = LayerNorm(width, eps)
        layernorm.weight = nn.Parameter(torch.ones(num_trials, width, device=device))
        layernorm.bias = nn.Parameter(torch.zeros(num_trials, width, device=device))
        return layernorm

    def forward(self, hidden_SLD: Tensor, residual_SLD: Tensor | None = None) -> Tensor:
        """LN(hidden + residual)."""
        total_SLD = hidden_SLD if residual_SLD is None else hidden_SLD + residual_SLD
        weight, bias = self.weight.to(total_SLD.dtype), self.bias.to(total_SLD.dtype)
        if weight.dim() != bias.dim():  # only one of the two is trained
            num_trials = max(weight.numel(), bias.numel()) // weight.shape[-1]
            weight, bias = weight.expand(num_trials, -1), bias.expand(num_trials, -1)
        width = weight.shape[-1]
        if weight.numel() == width:
            return torch.layer_norm(total_SLD, (width,), weight.view(width), bias.view(width), self.eps)
        normed: Tensor = _LayerNorms.apply(total_SLD, weight, bias, self.eps)
        return normed


class _LayerNorms(torch.autograd.Function):
    """K LayerNorms, one a trial, each by the library's fused kernel over the trial's part of the batch.

    One normalisation of all and a product with each trial's weight would be as fast, but in bf16 it rounds in between:
    a packed trial would be a little less exact than the same trial alone.
    """

    @staticmethod
    def forward(ctx: Any, total_SLD: Tensor, weight_KD: Tensor, bias_KD: Tensor, eps: float) -> Tensor:
        num_trials, width = weight_KD.shape
        rows = total_SLD.view(num_trials, -1, width)
        normed = torch.empty_like(rows)
        statistics = []
        for k in range(num_trials):
            normed[k], mean, rstd = torch.native_layer_norm(rows[k], (width,), weight_KD[k], bias_KD[k], eps)
            statistics += [mean, rstd]
        ctx.save_for_backward(rows, weight_KD, bias_KD, *statistics)
        return normed.view_as(total_SLD)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        rows, weight_KD, bias_KD, *statistics = ctx.saved_tensors
        width = weight_KD.shape[1]
        grad_rows = grads[0].reshape(rows.shape)
        grad_total, grad_weight, grad_bias = (torch.empty_like(each) for each in (rows, weight_KD, bias_KD))
        for k in range(len(weight_KD)):
            mean, rstd = statistics[2 * k : 2 * k + 2]
            grad_total[k], grad_weight[k], grad_bias[k] = torch.ops.aten.native_layer_norm_backward(
                grad_rows[k], rows[k], (width,), mean, rstd, weight_KD[k], bias_KD[k], (True, True, True)
            )
        return grad_total.view_as(grads[0]), grad_weight, grad_bias, None
