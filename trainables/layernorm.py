"""LayerNorm of a sum, with one weight for all sequences or one a trial.

Suffixes: K trials, S = K*B sequences, L length, D width.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


class LayerNorm(nn.Module):
    """LayerNorm with one weight for all (D,), or one a trial (K, D)."""

    def __init__(self, width: int, eps: float) -> None:
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(width), requires_grad=False)
        self.bias = nn.Parameter(torch.zeros(width), requires_grad=False)

    def forward(self, hidden_SLD: Tensor, residual_SLD: Tensor | None = None) -> Tensor:
        """LN(hidden + residual)."""
        total_SLD = hidden_SLD if residual_SLD is None else hidden_SLD + residual_SLD
        weight, bias = self.weight.to(total_SLD.dtype), self.bias.to(total_SLD.dtype)
        width = weight.shape[-1]
        if weight.numel() == width:
            return torch.layer_norm(total_SLD, (width,), weight.view(width), bias.view(width), self.eps)
        normed = torch.layer_norm(total_SLD, (width,), eps=self.eps).view(weight.shape[0], -1, width)
        return torch.addcmul(bias[:, None], normed, weight[:, None]).view_as(total_SLD)
