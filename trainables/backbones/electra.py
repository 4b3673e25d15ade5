"""ELECTRA (Clark et al. 2020): BERT without a pooler, with embeddings that may be narrower than its layers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from trainables.backbones import bert
from trainables.nn.encoder_shape import EncoderShape

MODEL_TYPES = ("electra",)
PREFIX = "electra."
TENSORS = bert.TENSORS
_EMBEDDING_SIZE = 128  # transformers' own, where a configuration says nothing


def shape(config: Mapping[str, Any]) -> EncoderShape:
    plain = bert.shape(config, has_pooler=False, pooling="first")
    return replace(plain, embedding_size=config.get("embedding_size", _EMBEDDING_SIZE))
