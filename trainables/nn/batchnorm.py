"""Batch normalisation with statistics of each trial's own, over word pieces only.

Suffixes: K trials, N rows of a trial, W width.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

MOMENTUM = 0.1  # of a batch in the running statistics, torch's default


class BatchNorm(nn.Module):
    """K batch normalisations, one a trial (Ioffe and Szegedy 2015): by the batch's statistics in training, else by
    running ones.

    The running statistics are state of a trial like its weights, but no gradient reaches them. A pack keeps them with
    the trial (`trainables.training.weights`), so they are buffers with a trial axis.
    """

    running_mean: Tensor
    running_var: Tensor

    def __init__(self, num_trials: int, width: int, device: torch.device, eps: float = 1e-5) -> None:
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(num_trials, width, device=device))
        self.bias = nn.Parameter(torch.zeros(num_trials, width, device=device))
        self.register_buffer("running_mean", torch.zeros(num_trials, width, device=device))
        self.register_buffer("running_var", torch.ones(num_trials, width, device=device))

    def forward(self, hidden_KNW: Tensor, mask_KN: Tensor | None = None) -> Tensor:
        """Normalised rows. Rows the mask leaves out have no part in the statistics, so padding changes nothing."""
        values = hidden_KNW.float()
        if self.training:
            mean_KW, var_KW = self._measure(values, mask_KN)
        else:
            mean_KW, var_KW = self.running_mean, self.running_var
        scale_KW = self.weight.float() * torch.rsqrt(var_KW + self.eps)
        shift_KW = self.bias.float() - mean_KW * scale_KW
        return torch.addcmul(shift_KW[:, None], values, scale_KW[:, None]).to(hidden_KNW.dtype)

    def _measure(self, values: Tensor, mask_KN: Tensor | None) -> tuple[Tensor, Tensor]:
        """Mean and variance of the batch, which also move the running ones; the unbiased variance does, as in torch."""
        if mask_KN is None:
            count = torch.full((), float(values.shape[1]), device=values.device)
            mean_KW = values.mean(dim=1)
            var_KW = (values - mean_KW[:, None]).square().mean(dim=1)
        else:
            weight_KN1 = mask_KN[..., None].to(values.dtype)
            count = weight_KN1.sum(dim=1)
            mean_KW = (values * weight_KN1).sum(dim=1) / count
            var_KW = ((values - mean_KW[:, None]).square() * weight_KN1).sum(dim=1) / count
        with torch.no_grad():
            unbiased = var_KW.detach() * (count / (count - 1).clamp_min(1))
            self.running_mean.lerp_(mean_KW.detach(), MOMENTUM)
            self.running_var.lerp_(unbiased, MOMENTUM)
        return mean_KW, var_KW
