"""ALBERT (Lan et al. 2020): BERT whose layers share their weights, with embeddings narrower than its layers.

A layer is one pass through attention and feed-forward, so ALBERT-base has twelve. What is put into a layer, such as an
adapter, is that pass's own; what the checkpoint holds is counted and trained once for all passes that share it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from trainables.backbones import bert
from trainables.nn.encoder_shape import EncoderShape

MODEL_TYPES = ("albert",)
PREFIX = "albert."
_LAYER = "encoder.albert_layer_groups.{i}.albert_layers.0."
TENSORS: Mapping[str, str | tuple[str, ...]] = {
    "embeddings.word": "embeddings.word_embeddings",
    "embeddings.position": "embeddings.position_embeddings",
    "embeddings.token_type": "embeddings.token_type_embeddings",
    "embeddings.layernorm": "embeddings.LayerNorm",
    "embeddings.project": "encoder.embedding_hidden_mapping_in",
    "layers.{i}.attention.qkv": (
        f"{_LAYER}attention.query",
        f"{_LAYER}attention.key",
        f"{_LAYER}attention.value",
    ),
    "layers.{i}.attention_output.dense": f"{_LAYER}attention.dense",
    "layers.{i}.attention_output.layernorm": f"{_LAYER}attention.LayerNorm",
    "layers.{i}.intermediate": f"{_LAYER}ffn",
    "layers.{i}.feedforward_output.dense": f"{_LAYER}ffn_output",
    "layers.{i}.feedforward_output.layernorm": f"{_LAYER}full_layer_layer_norm",
    "pooler": "pooler",
}


def shape(config: Mapping[str, Any]) -> EncoderShape:
    if (inner := config.get("inner_group_num", 1)) != 1:
        raise ValueError(f"inner_group_num must be 1, as in every published ALBERT, but got {inner!r}")
    plain = bert.shape(config)
    groups = config.get("num_hidden_groups", 1)
    if not isinstance(groups, int) or not 1 <= groups <= plain.num_layers:
        raise ValueError(f"num_hidden_groups must be in [1, {plain.num_layers}], the layers, but got {groups!r}")
    return dataclasses.replace(
        plain,
        # The library's defaults, where a configuration says nothing.
        embedding_size=config.get("embedding_size", 128),
        activation=config.get("hidden_act", "gelu_new"),
        hidden_dropout=config.get("hidden_dropout_prob", 0.0),
        attention_dropout=config.get("attention_probs_dropout_prob", 0.0),
        head_dropout=config.get("classifier_dropout_prob", 0.1),
        has_projection=True,
        # Divided twice as transformers does it, which rounding makes another group of where neither is a multiple.
        weights_of=tuple(int(layer / (plain.num_layers / groups)) for layer in range(plain.num_layers)),
    )
