"""LayerNorm of a sum, with one weight for all rows or one a trial.

Suffixes: K trials, N = K*M rows (or S sequences), D width.
"""

from __future__ import annotations

import functools

import torch
from torch import Tensor, nn

from trainables.nn.dropout import Dropout
from trainables.nn.kernels.layernorm import dropout_residual_layernorm, residual_layernorm


class LayerNorm(nn.Module):
    """LayerNorm with one weight for all (D,), or one a trial (K, D); without a bias where the model has none."""

    bias: nn.Parameter | None

    def __init__(self, width: int, eps: float, *, has_bias: bool = True) -> None:
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(width), requires_grad=False)
        self.bias = nn.Parameter(torch.zeros(width), requires_grad=False) if has_bias else None

    @staticmethod
    def stacked(num_trials: int, width: int, device: torch.device, eps: float = 1e-5) -> LayerNorm:
        """New LayerNorms, one a trial, trained."""
        layernorm = LayerNorm(width, eps)
        layernorm.weight = nn.Parameter(torch.ones(num_trials, width, device=device))
        layernorm.bias = nn.Parameter(torch.zeros(num_trials, width, device=device))
        return layernorm

    def forward(self, hidden_ND: Tensor, residual_ND: Tensor | None = None) -> Tensor:
        """LN(hidden + residual)."""
        width = hidden_ND.shape[-1]
        rows_ND = hidden_ND.reshape(-1, width)
        residual_ND = None if residual_ND is None else residual_ND.reshape(-1, width)
        return residual_layernorm(rows_ND, residual_ND, self.weight, self._bias, self.eps).view_as(hidden_ND)

    def after_dropout(self, hidden_ND: Tensor, residual_ND: Tensor, dropout: Dropout) -> Tensor:
        """LN(dropout(hidden) + residual), in one pass over the rows."""
        rates_K = dropout.rates_K
        if rates_K is None:
            return self(hidden_ND, residual_ND)
        keys = dropout.keys_for(hidden_ND)
        return dropout_residual_layernorm(
            hidden_ND, residual_ND, self.weight, self._bias, self.eps, keys, dropout.site, rates_K
        )

    @property
    def _bias(self) -> Tensor:
        return _zeros(self.weight.shape[-1], self.weight.device) if self.bias is None else self.bias


@functools.cache
@torch.inference_mode(False)  # whoever asks first may be an evaluation, and then a training
def _zeros(width: int, device: torch.device) -> Tensor:
    """The bias of LayerNorms that have none, in float32."""
    return torch.zeros(width, device=device)
