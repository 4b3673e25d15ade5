"""Bottleneck adapters (Houlsby et al. 2019): two a layer, with every LayerNorm and the head trained.

One adapter computes x + W2 f(W1 x + b1) + b2 with W1: D -> A, W2: A -> D, f the tanh approximation of GELU (the
paper's released code; the paper says "a nonlinearity"). It stands after the sub-layer's projection and dropout,
before its residual and LayerNorm. The pooler stays frozen.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from trainables.encoder import Encoder
from trainables.initialisation import parameter_device, truncated_normal, zeros
from trainables.shape import EncoderShape


@dataclass(frozen=True, kw_only=True)
class Options:
    """`adapter_size` is the bottleneck width A; `init_std` the sigma of W1 and W2 before truncation."""

    adapter_size: int = 64
    init_std: float = 1e-2

    def faults(self, shape: EncoderShape) -> list[str]:
        faults = []
        if not 1 <= self.adapter_size <= shape.hidden_size:
            rule = f"must be in [1, {shape.hidden_size}], the backbone's hidden size"
            faults.append(f"adapter_size: {rule}, but got {self.adapter_size}")
        if not 0 <= self.init_std <= 10:
            faults.append(f"init_std: must be in [0, 10], but got {self.init_std}")
        return faults


class Adapter(nn.Module):
    """K adapters, one a trial, applied to K*B sequences laid trial after trial."""

    def __init__(
        self, width: int, options: Sequence[Options], generators: Sequence[torch.Generator], device: torch.device
    ) -> None:
        super().__init__()
        num_trials, size = len(options), options[0].adapter_size
        stds = [each.init_std for each in options]
        self.down_proj = truncated_normal((width, size), stds, generators, device)
        self.down_bias = zeros(num_trials, (size,), device)
        self.up_proj = truncated_normal((size, width), stds, generators, device)
        self.up_bias = zeros(num_trials, (width,), device)

    def forward(self, hidden_SLD: Tensor) -> Tensor:
        num_trials, width, _ = self.down_proj.shape
        down_KDA, down_bias_KA, up_KAD, up_bias_KD = (
            parameter.to(hidden_SLD.dtype) for parameter in (self.down_proj, self.down_bias, self.up_proj, self.up_bias)
        )
        hidden_KND = hidden_SLD.view(num_trials, -1, width)
        bottleneck_KNA = F.gelu(torch.baddbmm(down_bias_KA[:, None], hidden_KND, down_KDA), approximate="tanh")
        return hidden_SLD + torch.baddbmm(up_bias_KD[:, None], bottleneck_KNA, up_KAD).view_as(hidden_SLD)


def adapt(view: Encoder, options: Sequence[Options], generators: Sequence[torch.Generator]) -> None:
    device = parameter_device(view)
    for output in view.sublayer_outputs():
        output.adapter = Adapter(view.shape.hidden_size, options, generators, device)
    for name in view.layernorm_names():
        view.train_copy(name, num_trials=len(options))


def trained_params(shape: EncoderShape, options: Options) -> int:
    """2L (2DA + D + A) for the adapters and 2D for each of the 2L + 1 LayerNorms."""
    width, size = shape.hidden_size, options.adapter_size
    return 2 * shape.num_layers * (2 * width * size + width + size) + shape.layernorm_params


def stack_key(options: Options) -> Hashable:
    return options.adapter_size  # what `init_std` decides is in the tensors
