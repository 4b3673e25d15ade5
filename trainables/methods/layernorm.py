"""Train only the LayerNorms and the head (Houlsby et al. 2019, section 3.4)."""

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
        return []


def adapt(view: Encoder, options: Sequence[Options], generators: Sequence[torch.Generator]) -> None:
    for name in view.layernorm_names():
        view.train_copy(name, num_trials=len(options))


def trained_params(shape: EncoderShape, options: Options) -> int:
    """2D for each of the 2L + 1 LayerNorms: 4DL + 2D."""
    return shape.layernorm_params


def stack_key(options: Options) -> Hashable:
    return "layernorm"


def starts_unchanged(options: Options) -> bool:
    return True
