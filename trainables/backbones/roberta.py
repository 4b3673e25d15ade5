"""RoBERTa (Liu et al. 2019) and XLM-R (Conneau et al. 2020): BERT, with positions counted from after the padding's."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from trainables.backbones import bert
from trainables.nn.encoder_shape import EncoderShape

MODEL_TYPES = ("roberta", "xlm-roberta")
PREFIX = "roberta."
TENSORS = bert.TENSORS


def shape(config: Mapping[str, Any]) -> EncoderShape:
    # Without next-sentence prediction nothing has trained a pooler, even where a checkpoint holds one.
    return bert.shape(config, offset=config.get("pad_token_id", 1) + 1, pooling="first")
