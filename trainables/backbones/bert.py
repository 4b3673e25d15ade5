"""BERT (Devlin et al. 2019) and the many encoders published as one, MiniLM among them. Others are built like it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from trainables.nn.encoder_shape import EncoderShape

MODEL_TYPES = ("bert",)
PREFIX = "bert."
# Our name -> name in a checkpoint, prefix such as "bert." left out. The three parts of qkv are stacked in this order.
TENSORS: Mapping[str, str | tuple[str, ...]] = {
    "embeddings.word": "embeddings.word_embeddings",
    "embeddings.position": "embeddings.position_embeddings",
    "embeddings.token_type": "embeddings.token_type_embeddings",
    "embeddings.layernorm": "embeddings.LayerNorm",
    "embeddings.project": "embeddings_project",
    "layers.{i}.attention.qkv": (
        "encoder.layer.{i}.attention.self.query",
        "encoder.layer.{i}.attention.self.key",
        "encoder.layer.{i}.attention.self.value",
    ),
    "layers.{i}.attention_output.dense": "encoder.layer.{i}.attention.output.dense",
    "layers.{i}.attention_output.layernorm": "encoder.layer.{i}.attention.output.LayerNorm",
    "layers.{i}.intermediate": "encoder.layer.{i}.intermediate.dense",
    "layers.{i}.feedforward_output.dense": "encoder.layer.{i}.output.dense",
    "layers.{i}.feedforward_output.layernorm": "encoder.layer.{i}.output.LayerNorm",
    "pooler": "pooler.dense",
}


def shape(
    config: Mapping[str, Any], *, offset: int = 0, has_pooler: bool = True, pooling: str = "pooler"
) -> EncoderShape:
    """The sizes of an encoder built like BERT; `offset` is the position of a text's first word piece."""
    if config.get("position_embedding_type", "absolute") != "absolute":
        raise ValueError(f"position_embedding_type must be absolute, but got {config['position_embedding_type']!r}")
    return EncoderShape(
        model_type=config["model_type"],
        vocab_size=config["vocab_size"],
        hidden_size=config["hidden_size"],
        num_layers=config["num_hidden_layers"],
        num_heads=config["num_attention_heads"],
        intermediate_size=config["intermediate_size"],
        max_positions=config["max_position_embeddings"],
        type_vocab_size=config.get("type_vocab_size", 2),
        embedding_size=config["hidden_size"],
        position_offset=offset,
        layer_norm_eps=config.get("layer_norm_eps", 1e-12),
        activation=config.get("hidden_act", "gelu"),
        hidden_dropout=config.get("hidden_dropout_prob", 0.1),
        attention_dropout=config.get("attention_probs_dropout_prob", 0.1),
        has_pooler=has_pooler,
        pooling=pooling,
    )
