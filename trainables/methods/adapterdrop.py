"""Specialised AdapterDrop (Rücklé et al. 2021): adapters in the upper layers only, the lowest n left as they are.

What is below the first adapter is the same for every task, so it can be computed once for many. The number of dropped
layers is fixed in training and in use. LayerNorms are trained in the layers that carry adapters, and the head.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import torch

from trainables.nn.adapters import Bottleneck, insert_adapters
from trainables.nn.encoder import Encoder
from trainables.nn.encoder_shape import EncoderShape


@dataclass(frozen=True, kw_only=True)
class Options:
    """`num_dropped` layers at the bottom have no adapters; the others are as of `adapter`."""

    num_dropped: int = 2
    adapter_size: int = 64
    init_std: float = 1e-2
    placement: str = "houlsby"
    pooling: str = "auto"

    def design(self) -> Bottleneck:
        return Bottleneck(
            size=self.adapter_size,
            init_std=self.init_std,
            placement=self.placement,
            interaction="add",
            scaling=None,
            activation="gelu_new",
            depth=1,
            norm="none",
        )

    def faults(self, shape: EncoderShape) -> list[str]:
        faults = self.design().faults(shape)
        if not 0 <= self.num_dropped < shape.num_layers:
            rule = f"must be in [0, {shape.num_layers - 1}], so that a layer is left"
            faults.append(f"num_dropped: {rule}, but got {self.num_dropped}")
        return faults


def adapt(view: Encoder, options: Sequence[Options], generators: Sequence[torch.Generator]) -> None:
    layers = range(options[0].num_dropped, view.shape.num_layers)
    view.split_layers(layers.start)
    for name in view.layernorm_names():
        is_above = name == "final_norm" or (name.startswith("layers.") and int(name.split(".")[1]) in layers)
        if is_above:
            view.train_copy(name, num_trials=len(options))
    insert_adapters(view, layers, [each.design() for each in options], generators)


def trained_params(shape: EncoderShape, options: Options) -> int:
    """For each of the L - n upper layers its adapters of 2DA + D + A each, and 4D for its two LayerNorms."""
    design = options.design()
    adapters = (shape.num_layers - options.num_dropped) * design.per_layer * design.params(shape.hidden_size)
    return adapters + shape.norms_params(options.num_dropped)


def stack_key(options: Options) -> Hashable:
    return (options.num_dropped, options.adapter_size, options.placement)


def starts_unchanged(options: Options) -> bool:
    return options.init_std == 0  # near to unchanged where it is small
