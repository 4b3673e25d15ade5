"""RoBERTa (Liu et al. 2019), XLM-R (Conneau et al. 2020), CamemBERT (Martin et al. 2020).

They are built like BERT, with positions counted from after the padding's.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from trainables.backbones import bert
from trainables.nn.encoder_shape import EncoderShape

MODEL_TYPES = ("roberta", "xlm-roberta", "camembert")
PREFIX = "roberta."
TENSORS = bert.TENSORS


def shape(config: Mapping[str, Any]) -> EncoderShape:
    # Without next-sentence prediction nothing has trained a pooler, even where a checkpoint holds one.
    return bert.shape(config, offset=first_position(config), pooling="first")


def first_position(config: Mapping[str, Any]) -> int:
    """The position of a text's first word piece: the one after the padding's.

    Raises `ValueError` where the configuration says that there is no padding.
    """
    padding = config.get("pad_token_id", 1)
    if not isinstance(padding, int):
        raise ValueError(
            f"pad_token_id of a {config['model_type']} must be a whole number, for positions are counted from the one "
            f"after it, but got {'null' if padding is None else repr(padding)}"
        )
    return padding + 1
