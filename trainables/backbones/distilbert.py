"""DistilBERT (Sanh et al. 2019): half the layers of BERT, no token types, no pooler, and names of its own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from trainables.nn.encoder_shape import EncoderShape

MODEL_TYPES = ("distilbert",)
PREFIX = "distilbert."
TENSORS: Mapping[str, str | tuple[str, ...]] = {
    "embeddings.word": "embeddings.word_embeddings",
    "embeddings.position": "embeddings.position_embeddings",
    "embeddings.layernorm": "embeddings.LayerNorm",
    "layers.{i}.attention.qkv": (
        "transformer.layer.{i}.attention.q_lin",
        "transformer.layer.{i}.attention.k_lin",
        "transformer.layer.{i}.attention.v_lin",
    ),
    "layers.{i}.attention_output.dense": "transformer.layer.{i}.attention.out_lin",
    "layers.{i}.attention_output.layernorm": "transformer.layer.{i}.sa_layer_norm",
    "layers.{i}.intermediate": "transformer.layer.{i}.ffn.lin1",
    "layers.{i}.feedforward_output.dense": "transformer.layer.{i}.ffn.lin2",
    "layers.{i}.feedforward_output.layernorm": "transformer.layer.{i}.output_layer_norm",
}


def shape(config: Mapping[str, Any]) -> EncoderShape:
    return EncoderShape(
        model_type=config["model_type"],
        vocab_size=config["vocab_size"],
        hidden_size=config["dim"],
        num_layers=config["n_layers"],
        num_heads=config["n_heads"],
        intermediate_size=config["hidden_dim"],
        max_positions=config["max_position_embeddings"],
        type_vocab_size=0,
        embedding_size=config["dim"],
        activation=config.get("activation", "gelu"),
        hidden_dropout=config.get("dropout", 0.1),
        attention_dropout=config.get("attention_dropout", 0.1),
        has_pooler=False,
        pooling="first",
    )
