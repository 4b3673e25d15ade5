"""BitFit (Ben Zaken et al. 2022): every bias of the encoder and the head, nothing else.

Biases of queries, keys, values, projections, feed-forward layers, LayerNorms and the pooler.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import torch

from trainables.nn.encoder import Encoder
from trainables.nn.encoder_shape import EncoderShape

ADDS_NOTHING = True


@dataclass(frozen=True, kw_only=True)
class Options:
    """`pooling`: what the head reads; see `trainables.methods.read_pooling`."""

    pooling: str = "auto"

    def faults(self, shape: EncoderShape) -> list[str]:
        if shape.bias_params:
            return []
        kind = f"this {shape.model_type} has none"
        return [f"backbone: must have biases to train, but {kind}; `layernorm` trains about as few parameters"]


def adapt(view: Encoder, options: Sequence[Options], generators: Sequence[torch.Generator]) -> None:
    for name in [name for name, _ in view.named_parameters() if name.endswith(".bias")]:
        view.train_copy(name, num_trials=len(options))


def trained_params(shape: EncoderShape, options: Options) -> int:
    """7D + I a layer, the embeddings' LayerNorm (and projection, where there is one), the pooler and distances."""
    return shape.bias_params


def stack_key(options: Options) -> Hashable:
    return "bitfit"


def starts_unchanged(options: Options) -> bool:
    return True
