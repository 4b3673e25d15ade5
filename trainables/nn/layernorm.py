"""LayerNorm of a sum, with one weight for all rows or one a trial.

Suffixes: K trials, N = K*M rows (or S sequences), D width.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from trainables.nn.dropout import Dropout
from trainables.nn.kernels.layernorm import dropout_residual_layernorm, residual_layernorm


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

    def forward(self, hidden_ND: Tensor, residual_ND: Tensor | None = None) -> Tensor:
        """LN(hidden + residual)."""
        width = hidden_ND.shape[-1]
        rows_ND = hidden_ND.reshape(-1, width)
        residual_ND = None if residual_ND is None else residual_ND.reshape(-1, width)
        return residual_layernorm(rows_ND, residual_ND, self.weight, self.bias, self.eps).view_as(hidden_ND)

    def after_dropout(self, hidden_ND: Tensor, residual_ND: Tensor, dropout: Dropout) -> Tensor:
        """LN(dropout(hidden) + residual), in one pass over the rows."""
        rates_K = dropout.rates_K
        if rates_K is None:
            return self(hidden_ND, residual_ND)
        keys = dropout.keys_for(hidden_ND)
        return dropout_residual_layernorm(
            hidden_ND, residual_ND, self.weight, self.bias, self.eps, keys, dropout.site, rates_K
        )
