"""Linear maps of which every trial of a pack has its own.

Suffixes: K trials, N rows of a trial, I and O the widths in and out.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from trainables.nn.initialisation import truncated_normal, zeros


class StackedLinear(nn.Module):
    """K linear maps; trial k's is applied to its part of the rows, which lie trial after trial.

    Weights are truncated normal with the given standard deviation, or one a trial; biases are zero.
    """

    def __init__(
        self,
        width_in: int,
        width_out: int,
        std: float | Sequence[float],
        generators: Sequence[torch.Generator],
        device: torch.device,
        *,
        bias: bool = True,
    ) -> None:
        super().__init__()
        self.weight = truncated_normal((width_in, width_out), std, generators, device)
        self.bias = zeros(len(generators), (width_out,), device) if bias else None

    def forward(self, hidden: Tensor) -> Tensor:
        """(..., O) of (..., I), in the input's dtype."""
        num_trials, width_in, width_out = self.weight.shape
        weight_KIO = self.weight.to(hidden.dtype)
        rows_KNI = hidden.reshape(num_trials, -1, width_in)
        if self.bias is None:
            rows_KNO = torch.bmm(rows_KNI, weight_KIO)
        else:
            rows_KNO = torch.baddbmm(self.bias.to(hidden.dtype)[:, None], rows_KNI, weight_KIO)
        return rows_KNO.view(*hidden.shape[:-1], width_out)
