"""Fine-tune every weight of the backbone: embeddings, all layers, pooler and head."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from trainables.methods import ALONE, Alone
from trainables.nn.encoder import Encoder
from trainables.nn.encoder_shape import EncoderShape

ON_ANY_MODEL = True
ADDS_NOTHING = True
GOES_ON = True


@dataclass(frozen=True, kw_only=True)
class Options:
    """`pooling`: what the head reads; see `trainables.methods.read_pooling`."""

    pooling: str = "auto"

    def faults(self, shape: EncoderShape) -> list[str]:
        return []


def adapt(view: Encoder, options: Sequence[Options], generators: Sequence[torch.Generator]) -> None:
    view.train_everything()


def trained_params(shape: EncoderShape, options: Options) -> int:
    """Everything the encoder has: embeddings, L layers and pooler."""
    return shape.params


def stack_key(options: Options) -> Alone:
    return ALONE


def starts_unchanged(options: Options) -> bool:
    return True
