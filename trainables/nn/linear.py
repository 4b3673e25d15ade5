"""Products, frozen for all trials of a pack or with something of each trial's own.

Suffixes: K trials, D width out.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from trainables.nn.kernels.frozen_product import frozen_linear


class Linear(nn.Linear):
    """A product in the dtype of its input, whatever dtype its weight is kept in.

    Its bias may be one a trial (K, D), or None.
    """

    bias: nn.Parameter | None  # type: ignore[assignment] # torch's own says Tensor, and gives None too

    def reset_parameters(self) -> None:
        if not self.weight.is_meta:  # there nothing is drawn, but torch takes its time
            super().reset_parameters()

    @property
    def is_plain(self) -> bool:
        """Whether it is one product for all trials."""
        return type(self) is Linear and (self.bias is None or self.bias.dim() == 1)

    def is_frozen_in(self, dtype: torch.dtype) -> bool:
        """Whether this is a plain product with frozen weights of this dtype, which may be fused with its neighbours."""
        trained = self.weight.requires_grad or (self.bias is not None and self.bias.requires_grad)
        return self.is_plain and self.weight.dtype is dtype and not trained

    def forward(self, input: Tensor) -> Tensor:
        if self.is_frozen_in(input.dtype):
            return frozen_linear(input, self.weight, self.bias)
        weight, bias = self.weight.to(input.dtype), None if self.bias is None else self.bias.to(input.dtype)
        if bias is None or bias.dim() == 1:
            return F.linear(input, weight, bias)
        product = F.linear(input, weight)
        return (product.view(bias.shape[0], -1, bias.shape[1]) + bias[:, None]).view_as(product)

    def add_own(self, product: Tensor, rows: Tensor, frozen_bias: Tensor | None) -> None:
        """Turn a frozen product of rows (M, O), of one trial and with the frozen bias, into this one's, in place."""
        if self.bias is not None and frozen_bias is not None and self.bias.dim() == 2:
            product += (self.bias[0] - frozen_bias.float()).to(product.dtype)
