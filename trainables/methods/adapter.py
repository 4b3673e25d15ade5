"""Bottleneck adapters (Houlsby et al. 2019): two a layer, with every LayerNorm and the head trained.

One adapter computes x + W2 f(W1 x + b1) + b2 with W1: D -> A, W2: A -> D, f the tanh approximation of GELU (the
paper's released code; the paper says "a nonlinearity"). It stands after the sub-layer's projection and dropout,
before its residual and LayerNorm. The pooler, where the head reads it, stays frozen. The options are the variants of
the paper's section 3.6, of which it gives no numbers, and the placements in use since.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import torch

from trainables.nn.adapters import Bottleneck, insert_adapters, parse_layers
from trainables.nn.encoder import Encoder
from trainables.nn.encoder_shape import EncoderShape


@dataclass(frozen=True, kw_only=True)
class Options:
    """The design of the adapters and what is trained beside them.

    Args:
        adapter_size: the bottleneck width A.
        init_std: the sigma of all adapter matrices before truncation at 2 sigma.
        placement: houlsby, pfeiffer, attention_only, feedforward_only or parallel; see `trainables.nn.adapters`.
        interaction: "add" the bottleneck's output, or "multiply" by 1 plus it.
        scaling: factor of the bottleneck's output; null is 4 for parallel and 1 elsewhere.
        activation: f, by the names of Hugging Face configurations; "gelu_new" is the tanh approximation of GELU.
        depth: hidden layers of an adapter, each A wide.
        norm: none, layer or batch: of each hidden layer before its activation.
        layers: which layers carry adapters, such as "all" or "0-5,8", counted from 0 at the bottom.
        train_layernorms: every LayerNorm of the backbone, as the paper does, or none.
        pooling: what the head reads: the frozen "pooler" (released code), the "first" token (paper), the "mean" over
            word pieces, or "auto", what the backbone was trained to be read by.
    """

    adapter_size: int = 64
    init_std: float = 1e-2
    placement: str = "houlsby"
    interaction: str = "add"
    scaling: float | None = None
    activation: str = "gelu_new"
    depth: int = 1
    norm: str = "none"
    layers: str = "all"
    train_layernorms: bool = True
    pooling: str = "auto"

    def design(self) -> Bottleneck:
        return Bottleneck(
            size=self.adapter_size,
            init_std=self.init_std,
            placement=self.placement,
            interaction=self.interaction,
            scaling=self.scaling,
            activation=self.activation,
            depth=self.depth,
            norm=self.norm,
        )

    def faults(self, shape: EncoderShape) -> list[str]:
        faults = self.design().faults(shape)
        try:
            parse_layers(self.layers, shape.num_layers)
        except ValueError as fault:
            faults.append(f"layers: {fault}")
        return faults


def adapt(view: Encoder, options: Sequence[Options], generators: Sequence[torch.Generator]) -> None:
    first = options[0]
    if first.train_layernorms:
        for name in view.layernorm_names():
            view.train_copy(name, num_trials=len(options))
    layers = parse_layers(first.layers, view.shape.num_layers)
    insert_adapters(view, layers, [each.design() for each in options], generators)


def trained_params(shape: EncoderShape, options: Options) -> int:
    """2 (or 1, by placement) adapters of 2DA + D + A a layer, and 2D for each of the 2L + 1 LayerNorms."""
    design = options.design()
    adapters = design.per_layer * len(parse_layers(options.layers, shape.num_layers))
    return adapters * design.params(shape.hidden_size) + options.train_layernorms * shape.layernorm_params


def stack_key(options: Options) -> Hashable:
    """Everything but `init_std`, which is in the tensors alone."""
    same = (options.placement, options.interaction, options.activation, options.norm, options.layers)
    return (options.adapter_size, options.depth, options.design().scale, options.train_layernorms, *same)


def starts_unchanged(options: Options) -> bool:
    return options.init_std == 0  # near to unchanged where it is small
