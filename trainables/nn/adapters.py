"""Bottleneck adapters: where they stand, what they read, and the module itself.

Shared by the methods that insert them. Placements, with x the input of a sub-layer, h its dropped-out projection, LN
its LayerNorm and m(.) the bottleneck W2 f(W1 . + b1) + b2:

    houlsby            LN(h + m(h) + x) after attention and after feed-forward (Houlsby et al. 2019, section 2.1)
    attention_only     the same after attention only (section 3.6)
    feedforward_only   the same after feed-forward only
    pfeiffer           LN(h + m(LN(h + x)) + x) after feed-forward (Pfeiffer et al. 2021)
    parallel           LN(h + s m(x) + x) after feed-forward (He et al. 2022)

In a pre-norm layer, whose sub-layers read LN(x), they stand in the same places, and what they give goes into the stream
that runs through all layers without a LayerNorm around it (decision 0026):

    houlsby            h + m(h) + x after attention and after feed-forward; likewise the next two
    pfeiffer           h + m(LN(h + x)) + x after feed-forward
    parallel           h + s m(LN(x)) + x after feed-forward

Suffixes: K trials, N rows (word pieces), D hidden, A adapter width; in KNA, N is the rows of one trial.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from trainables.faults import unknown_name
from trainables.nn.batchnorm import BatchNorm
from trainables.nn.encoder import Batch, Encoder
from trainables.nn.encoder_shape import EncoderShape
from trainables.nn.initialisation import parameter_device, truncated_normal, zeros
from trainables.nn.kernels.bottleneck import add_bottleneck
from trainables.nn.layernorm import LayerNorm
from trainables.nn.layers import ACTIVATIONS, EncoderLayer
from trainables.nn.stacked_linear import StackedLinear

# placement -> (after attention, after feed-forward, what the bottleneck reads)
PLACEMENTS = {
    "houlsby": (True, True, "projection"),
    "attention_only": (True, False, "projection"),
    "feedforward_only": (False, True, "projection"),
    "pfeiffer": (False, True, "normalised"),
    "parallel": (False, True, "input"),
}
INTERACTIONS = ("add", "multiply")
NORMS = ("none", "layer", "batch")


@dataclass(frozen=True, kw_only=True)
class Bottleneck:
    """One adapter's design. See `trainables.methods.adapter.Options` for what each field means."""

    size: int
    init_std: float
    placement: str
    interaction: str
    scaling: float | None
    activation: str
    depth: int
    norm: str

    @property
    def scale(self) -> float:
        """The factor s; parallel adapters have 4 unless told otherwise (He et al. 2022)."""
        return self.scaling if self.scaling is not None else 4.0 if self.placement == "parallel" else 1.0

    @property
    def per_layer(self) -> int:
        """Adapters a layer."""
        return sum(PLACEMENTS[self.placement][:2])

    def params(self, width: int) -> int:
        """2DA + D + A, A^2 + A for each further layer, and 2A for each normalisation."""
        norm = 0 if self.norm == "none" else 2 * self.size
        inner = (self.depth - 1) * (self.size**2 + self.size)
        return 2 * width * self.size + width + self.size + inner + self.depth * norm

    def faults(self, shape: EncoderShape) -> list[str]:
        """Every fault of the values on an encoder of this shape."""
        faults = []
        if not 1 <= self.size <= shape.hidden_size:
            rule = f"must be in [1, {shape.hidden_size}], the backbone's hidden size"
            faults.append(f"adapter_size: {rule}, but got {self.size}")
        if not 0 <= self.init_std <= 10:
            faults.append(f"init_std: must be in [0, 10], but got {self.init_std}")
        if not 1 <= self.depth <= 8:
            faults.append(f"depth: must be in [1, 8], but got {self.depth}")
        if self.scaling is not None and not 0 < abs(self.scaling) <= 100:
            faults.append(f"scaling: must be null or a number in [-100, 100] other than 0, but got {self.scaling}")
        named = {
            "placement": (self.placement, PLACEMENTS),
            "interaction": (self.interaction, INTERACTIONS),
            "activation": (self.activation, ACTIVATIONS),
            "norm": (self.norm, NORMS),
        }
        return faults + [
            f"{name}: {unknown_name(name, value, known)}"
            for name, (value, known) in named.items()
            if value not in known
        ]


def parse_layers(text: str, num_layers: int) -> tuple[int, ...]:
    """The layers that a text such as "all", "5" or "0-3,8" names, counted from 0 at the bottom, in order.

    Raises `ValueError` with one sentence where it names none, or one that the backbone does not have.
    """
    if text == "all":
        return tuple(range(num_layers))
    found: set[int] = set()
    for part in text.split(","):
        match = re.fullmatch(r"\s*(\d+)(?:\s*-\s*(\d+))?\s*", part)
        if match is None or int(match[2] or match[1]) < int(match[1]) or int(match[2] or match[1]) >= num_layers:
            raise ValueError(f'must be "all" or layers of 0 to {num_layers - 1} such as "0-2,4", but got {text!r}')
        found |= set(range(int(match[1]), int(match[2] or match[1]) + 1))
    return tuple(sorted(found))


class Adapter(nn.Module):
    """K adapters, one a trial, applied to rows laid trial after trial."""

    def __init__(
        self,
        width: int,
        designs: Sequence[Bottleneck],
        generators: Sequence[torch.Generator],
        device: torch.device,
        batch: Batch,
    ) -> None:
        super().__init__()
        first = designs[0]
        num_trials, size = len(designs), first.size
        stds = [design.init_std for design in designs]
        self.scale, self.interaction = first.scale, first.interaction
        self.reads = PLACEMENTS[first.placement][2]
        self.activation = ACTIVATIONS[first.activation]
        self.batch = batch
        self.down_proj = truncated_normal((width, size), stds, generators, device)
        self.down_bias = zeros(num_trials, (size,), device)
        self.inner = nn.ModuleList(StackedLinear(size, size, stds, generators, device) for _ in range(first.depth - 1))
        self.norms = nn.ModuleList(
            _norm(first.norm, num_trials, size, device) for _ in range(first.depth if first.norm != "none" else 0)
        )
        self.up_proj = truncated_normal((size, width), stds, generators, device)
        self.up_bias = zeros(num_trials, (width,), device)

    def forward(self, hidden_ND: Tensor, residual_ND: Tensor, layernorm: nn.Module, input_ND: Tensor) -> Tensor:
        """The sub-layer's projection with the adapter's part added, before the residual.

        `layernorm` is the sub-layer's, and `input_ND` what the sub-layer reads.
        """
        if self.reads == "projection":
            read_ND = hidden_ND
        else:
            read_ND = input_ND if self.reads == "input" else layernorm(hidden_ND, residual_ND)
        if self.interaction == "add" and not self.inner and not self.norms:
            return add_bottleneck(hidden_ND, read_ND, self._weights(read_ND.dtype), self.scale, self.activation)
        change_ND = self._change(read_ND)
        if self.scale != 1:
            change_ND = change_ND * self.scale
        return hidden_ND + change_ND if self.interaction == "add" else hidden_ND * (1 + change_ND)

    def _change(self, read_ND: Tensor) -> Tensor:
        """What the bottleneck makes of it (N, D): nothing where its up-projection is zero."""
        num_trials, width, _ = self.down_proj.shape
        down_KDA, down_bias_KA, up_KAD, up_bias_KD = self._weights(read_ND.dtype)
        bottleneck_KNA = torch.baddbmm(down_bias_KA[:, None], read_ND.reshape(num_trials, -1, width), down_KDA)
        bottleneck_KNA = self.activation(self._normalise(0, bottleneck_KNA, read_ND))
        for index, inner in enumerate(self.inner, start=1):
            bottleneck_KNA = self.activation(self._normalise(index, inner(bottleneck_KNA), read_ND))
        return torch.baddbmm(up_bias_KD[:, None], bottleneck_KNA, up_KAD).view_as(read_ND)

    def _weights(self, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """The outer two layers', as products take them."""
        return self.down_proj.to(dtype), self.down_bias.to(dtype), self.up_proj.to(dtype), self.up_bias.to(dtype)

    def _normalise(self, index: int, bottleneck_KNA: Tensor, read_ND: Tensor) -> Tensor:
        if not self.norms:
            return bottleneck_KNA
        norm = self.norms[index]
        if isinstance(norm, BatchNorm):
            normed: Tensor = norm(bottleneck_KNA, self.batch.is_piece_KM(read_ND.shape[0]))
        else:
            normed = norm(bottleneck_KNA)
        return normed


def insert_adapters(
    view: Encoder,
    layers: Sequence[int],
    designs: Sequence[Bottleneck],
    generators: Sequence[torch.Generator],
) -> None:
    """Put adapters into some layers of a view, for the K trials of these designs."""
    after_attention, after_feedforward, _ = PLACEMENTS[designs[0].placement]
    device, width = parameter_device(view), view.shape.hidden_size
    for index in layers:
        layer = view.layers[index]
        assert isinstance(layer, EncoderLayer)
        ends = [layer.attention_output] * after_attention + [layer.feedforward_output] * after_feedforward
        for end in ends:
            end.adapter = Adapter(width, designs, generators, device, view.batch)


def _norm(name: str, num_trials: int, width: int, device: torch.device) -> nn.Module:
    if name == "layer":
        return LayerNorm.stacked(num_trials, width, device)
    return BatchNorm(num_trials, width, device)
