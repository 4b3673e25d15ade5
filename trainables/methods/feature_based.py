"""Feature-based transfer: the frozen backbone's features of each row, computed once a task, and a new head on them.

Features are computed without dropout and kept by the engine, so a trial costs its head alone and hundreds of settings
a minute can be tried. Dropout is then that of the features before the head. The head is linear or has one hidden layer.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import torch

from trainables.nn.encoder import Encoder
from trainables.nn.encoder_shape import EncoderShape

KINDS = ("classification", "regression", "multilabel")
ON_ANY_MODEL = True


@dataclass(frozen=True, kw_only=True)
class Options:
    """`pooling` is what a feature is: the "mean" over word pieces, the "first" token's, what the "pooler" gives, or
    "auto", what the backbone was trained to be read by.

    `head_hidden_size` is the width of the head's hidden layer; 0 is a linear head.
    """

    pooling: str = "auto"
    head_hidden_size: int = 0

    def faults(self, shape: EncoderShape) -> list[str]:
        if 0 <= self.head_hidden_size <= 8192:
            return []
        return [f"head_hidden_size: must be in [0, 8192], but got {self.head_hidden_size}"]


def adapt(view: Encoder, options: Sequence[Options], generators: Sequence[torch.Generator]) -> None:
    view.head_hidden_size = options[0].head_hidden_size


def trained_params(shape: EncoderShape, options: Options) -> int:
    """None but the head's: C (D + 1), or with a hidden layer H (D + 1) + C (H + 1)."""
    return 0


def stack_key(options: Options) -> Hashable:
    return options.head_hidden_size


def starts_unchanged(options: Options) -> bool:
    return True
