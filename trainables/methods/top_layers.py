"""Fine-tune the top n layers, the pooler and the head; everything below stays frozen (Houlsby et al. 2019, 3.3, 3.4).

With n = L the embeddings are trained too, which makes it full fine-tuning, as the paper says of its variable
fine-tuning. Dropout is active below the cut as well, as it is in full fine-tuning.

A layer is one pass through attention and feed-forward. Where several passes have the same weights (ALBERT), the top n
get a copy of them, shared among these n alone and counted once; those below keep the checkpoint's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from trainables.methods import ALONE, Alone
from trainables.nn.encoder import Encoder
from trainables.nn.encoder_shape import EncoderShape

ADDS_NOTHING = True
GOES_ON = True


@dataclass(frozen=True, kw_only=True)
class Options:
    """`num_layers` counts from the top; n of L. `pooling`: what the head reads."""

    num_layers: int = 1
    pooling: str = "auto"

    def faults(self, shape: EncoderShape) -> list[str]:
        if 1 <= self.num_layers <= shape.num_layers:
            return []
        return [f"num_layers: must be in [1, {shape.num_layers}], the backbone's layers, but got {self.num_layers}"]


def adapt(view: Encoder, options: Sequence[Options], generators: Sequence[torch.Generator]) -> None:
    bottom = view.shape.num_layers - options[0].num_layers
    view.train_layers(bottom)
    if view.pooler is not None:
        view.train_copy("pooler")
    if bottom == 0:
        view.train_copy("embeddings")


def trained_params(shape: EncoderShape, options: Options) -> int:
    """n layers of 4 D^2 + 2 D I + 9 D + I, the pooler's D^2 + D, and the embeddings where n = L."""
    bottom = shape.num_layers - options.num_layers
    return shape.layers_params(bottom) + shape.pooler_params + (0 if bottom else shape.embedding_params)


def stack_key(options: Options) -> Alone:
    return ALONE


def starts_unchanged(options: Options) -> bool:
    return True
