"""Projected attention layers (Stickland and Murray 2019): a small attention beside each whole Transformer layer.

Per layer: V_E (D -> s), multi-head self-attention over s without an output product, V_D (s -> D), GELU; added before
the layer's last LayerNorm. V_E and V_D are shared by all layers. The authors fine-tune BERT along with them on all
tasks jointly; a trial here is one task, so the backbone stays frozen, as for the other methods with few parameters, and
what is counted is what they count for a task. V_D starts at zero, so the output is unchanged at the start.

Suffixes: N rows (word pieces), S sequences, D hidden, P the inner width s.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from trainables.nn.encoder import Encoder
from trainables.nn.encoder_shape import EncoderShape
from trainables.nn.initialisation import parameter_device
from trainables.nn.layers import Branch, EncoderLayer, SelfAttention
from trainables.nn.pieces import Pieces
from trainables.nn.stacked_linear import StackedLinear


@dataclass(frozen=True, kw_only=True)
class Options:
    """`size` is the inner width s, of which each of `num_heads` heads takes its part (204 and 6 in the released code).

    `init_std` is the sigma of the products within; `train_layernorms` trains every LayerNorm beside them;
    `pooling` is what the head reads.
    """

    size: int = 204
    num_heads: int = 6
    init_std: float = 2e-2
    train_layernorms: bool = False
    pooling: str = "auto"

    def faults(self, shape: EncoderShape) -> list[str]:
        faults = []
        if not 1 <= self.size <= shape.hidden_size:
            faults.append(f"size: must be in [1, {shape.hidden_size}], the backbone's hidden size, but got {self.size}")
        if self.num_heads < 1 or self.size % self.num_heads:
            faults.append(f"num_heads: must divide size = {self.size}, but got {self.num_heads}")
        if not 0 <= self.init_std <= 10:
            faults.append(f"init_std: must be in [0, 10], but got {self.init_std}")
        return faults


class ProjectedAttention(Branch):
    """One layer's attention between the projections that all layers share."""

    def __init__(
        self,
        down: StackedLinear,
        up: StackedLinear,
        options: Sequence[Options],
        generators: Sequence[torch.Generator],
        attention_dropout: float,
    ) -> None:
        super().__init__()
        size, device = options[0].size, down.weight.device
        self.down, self.up = down, up
        stds = [each.init_std for each in options]
        self.query, self.key, self.value = (StackedLinear(size, size, stds, generators, device) for _ in range(3))
        self.attend = SelfAttention(options[0].num_heads, attention_dropout)

    def forward(self, hidden_ND: Tensor, pieces: Pieces) -> Tensor:
        inner_NP = self.down(hidden_ND)
        qkv_NE = torch.cat([self.query(inner_NP), self.key(inner_NP), self.value(inner_NP)], dim=-1)
        return F.gelu(self.up(self.attend(qkv_NE, pieces)))

    def first(self, hidden_ND: Tensor, pieces: Pieces) -> Tensor:
        inner_NP = self.down(hidden_ND)
        query_SP = self.query(pieces.first(inner_NP))
        return F.gelu(self.up(self.attend.first(query_SP, self.key(inner_NP), self.value(inner_NP), pieces)))


def adapt(view: Encoder, options: Sequence[Options], generators: Sequence[torch.Generator]) -> None:
    shape, size, device = view.shape, options[0].size, parameter_device(view)
    if options[0].train_layernorms:
        for name in view.layernorm_names():
            view.train_copy(name, num_trials=len(options))
    down = StackedLinear(shape.hidden_size, size, [each.init_std for each in options], generators, device)
    up = StackedLinear(size, shape.hidden_size, 0.0, generators, device)
    for layer in view.layers:
        assert isinstance(layer, EncoderLayer)
        layer.branch = ProjectedAttention(down, up, options, generators, shape.attention_dropout)


def trained_params(shape: EncoderShape, options: Options) -> int:
    """3L (s^2 + s) + 2Ds + s + D: 1,819,836 on BERT-base with s = 204; and 2D a LayerNorm where those are trained."""
    size, width = options.size, shape.hidden_size
    pals = 3 * shape.num_layers * (size**2 + size) + 2 * width * size + size + width
    return pals + options.train_layernorms * shape.layernorm_params


def stack_key(options: Options) -> Hashable:
    return (options.size, options.num_heads, options.train_layernorms)


def starts_unchanged(options: Options) -> bool:
    return True
