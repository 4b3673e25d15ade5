"""LoRA (Hu et al. 2022): a low-rank change beside frozen projections, W x + (alpha / r) B A x, and the head.

By default of queries and values, as in the paper. A is drawn Kaiming-uniform, B is zero, so the output is unchanged at
the start.

Suffixes: K trials, S = K*B sequences, L length, I and O the widths of a projection, R rank.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from trainables.faults import unknown_name
from trainables.nn.dropout import Dropout
from trainables.nn.encoder import Encoder
from trainables.nn.encoder_shape import Disentangled, EncoderShape
from trainables.nn.initialisation import parameter_device, uniform, zeros
from trainables.nn.layers import EncoderLayer
from trainables.nn.linear import Linear

# target -> its place among the parts of the joined product of queries, keys and values; None: a product of its own
TARGETS = {"query": 0, "key": 1, "value": 2, "output": None, "up": None, "down": None}


@dataclass(frozen=True, kw_only=True)
class Options:
    """How large the change is and what it changes.

    Args:
        rank: the rank r of the change.
        alpha: the change is scaled by alpha / r.
        targets: which projections, of query, key, value, output (of attention), up and down (of feed-forward).
        lora_dropout: of what A reads; its masks are drawn from the trial's own stream.
        pooling: what the head reads.
    """

    rank: int = 8
    alpha: float = 16.0
    targets: str = "query,value"
    lora_dropout: float = 0.0
    pooling: str = "auto"

    def __post_init__(self) -> None:
        if all(name.strip() in TARGETS for name in self.targets.split(",")):  # one spelling, and so one identity
            object.__setattr__(self, "targets", ",".join(self.names()))

    def names(self) -> tuple[str, ...]:
        """The targets, none twice, in one order whatever the order they are written in."""
        given = {name.strip() for name in self.targets.split(",")}
        return tuple(name for name in TARGETS if name in given)

    def faults(self, shape: EncoderShape) -> list[str]:
        faults = []
        if not 1 <= self.rank <= shape.hidden_size:
            faults.append(f"rank: must be in [1, {shape.hidden_size}], the backbone's hidden size, but got {self.rank}")
        if not 0 < self.alpha <= 1e4:
            faults.append(f"alpha: must be in (0, 10000], but got {self.alpha}")
        if not 0 <= self.lora_dropout < 1:
            faults.append(f"lora_dropout: must be in [0, 1), but got {self.lora_dropout}")
        elif self.lora_dropout and isinstance(shape.relative, Disentangled) and shape.relative.shares_projections:
            rule = "must be 0 on a backbone that projects distances with its queries and keys"
            faults.append(f"lora_dropout: {rule}, but got {self.lora_dropout}")
        return faults + [
            f"targets: {unknown_name('target', name.strip(), TARGETS)}"
            for name in self.targets.split(",")
            if name.strip() not in TARGETS
        ]


class LowRank(nn.Module):
    """K low-rank changes of one projection, or of one part of a joined one."""

    def __init__(
        self,
        widths: tuple[int, int],
        options: Sequence[Options],
        generators: Sequence[torch.Generator],
        device: torch.device,
    ) -> None:
        super().__init__()
        first = options[0]
        self.scale = first.alpha / first.rank
        self.dropout = Dropout(first.lora_dropout, is_fixed=True)
        width_in, width_out = widths
        # Kaiming-uniform with a = sqrt(5), as the released code has it: bounds of 1 / sqrt(width).
        self.lora_a = uniform((width_in, first.rank), 1 / math.sqrt(width_in), generators, device)
        self.lora_b = zeros(len(options), (first.rank, width_out), device)

    def forward(self, hidden: Tensor) -> Tensor:
        """The change (..., O) of what the projection makes of (..., I)."""
        num_trials, width_in, _ = self.lora_a.shape
        dtype = hidden.dtype
        rows_KNI = self.dropout(hidden).reshape(num_trials, -1, width_in)
        change_KNO = torch.bmm(torch.bmm(rows_KNI, self.lora_a.to(dtype)), self.lora_b.to(dtype))
        return change_KNO.view(*hidden.shape[:-1], -1) * self.scale


class Changed(Linear):
    """A frozen projection with the changes of its parts."""

    def __init__(self, frozen: Linear, num_parts: int, changes: dict[int, LowRank]) -> None:
        nn.Module.__init__(self)
        self.weight, self.bias = frozen.weight, frozen.bias
        self.in_features, self.out_features = frozen.in_features, frozen.out_features
        self.num_parts = num_parts
        self.changes = nn.ModuleDict({str(part): change for part, change in changes.items()})

    def forward(self, hidden: Tensor) -> Tensor:
        product = super().forward(hidden)
        parts = list(product.chunk(self.num_parts, dim=-1))
        for part, change in self.changes.items():
            parts[int(part)] = parts[int(part)] + change(hidden)
        return parts[0] if len(parts) == 1 else torch.cat(parts, dim=-1)

    def add_own(self, product: Tensor, rows: Tensor, frozen_bias: Tensor | None) -> None:
        super().add_own(product, rows, frozen_bias)
        parts = product.chunk(self.num_parts, dim=-1)
        for part, change in self.changes.items():
            parts[int(part)].add_(change(rows))


def adapt(view: Encoder, options: Sequence[Options], generators: Sequence[torch.Generator]) -> None:
    names, shape, device = options[0].names(), view.shape, parameter_device(view)
    for layer in view.layers:
        assert isinstance(layer, EncoderLayer)

        def change(name: str) -> LowRank:
            return LowRank(_widths(name, shape), options, generators, device)

        if parts := {TARGETS[name]: change(name) for name in names if TARGETS[name] is not None}:
            layer.attention.qkv = Changed(layer.attention.qkv, 3, parts)  # type: ignore[arg-type]
        if "output" in names:
            layer.attention_output.dense = Changed(layer.attention_output.dense, 1, {0: change("output")})
        if "up" in names:
            layer.intermediate = Changed(layer.intermediate, 1, {0: change("up")})
        if "down" in names:
            layer.feedforward_output.dense = Changed(layer.feedforward_output.dense, 1, {0: change("down")})


def trained_params(shape: EncoderShape, options: Options) -> int:
    """L r (I + O), summed over the targets."""
    return shape.num_layers * options.rank * sum(sum(_widths(name, shape)) for name in options.names())


def stack_key(options: Options) -> Hashable:
    return (options.rank, options.alpha, options.names(), options.lora_dropout)


def _widths(target: str, shape: EncoderShape) -> tuple[int, int]:
    width = shape.hidden_size
    return {"up": (width, shape.up_width), "down": (shape.intermediate_size, width)}.get(target, (width, width))


def starts_unchanged(options: Options) -> bool:
    return True
