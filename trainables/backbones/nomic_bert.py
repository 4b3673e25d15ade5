"""Nomic BERT (Nussbaum et al. 2024): BERT's layers with rotary positions, gated feed-forward and no biases of products.

What is read are checkpoints of transformers' own class, which writes tensors under the names of those published before
it. The latter themselves need code from their repository, since their configurations are others.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from trainables.backbones.published_names import PublishedNames
from trainables.nn.encoder_shape import EncoderShape

MODEL_TYPES = ("nomic_bert",)
PREFIX = "nomic_bert."
TENSORS: Mapping[str, str | tuple[str, ...]] = {
    "embeddings.word": "embeddings.word_embeddings",
    "embeddings.token_type": "embeddings.token_type_embeddings",
    "embeddings.layernorm": "embeddings.LayerNorm",
    "layers.{i}.attention.qkv": tuple(f"layers.{{i}}.self_attn.{part}_proj" for part in "qkv"),
    "layers.{i}.attention_output.dense": "layers.{i}.self_attn.o_proj",
    "layers.{i}.attention_output.layernorm": "layers.{i}.post_attention_layernorm",
    "layers.{i}.intermediate": ("layers.{i}.mlp.gate_proj", "layers.{i}.mlp.up_proj"),
    "layers.{i}.feedforward_output.dense": "layers.{i}.mlp.down_proj",
    "layers.{i}.feedforward_output.layernorm": "layers.{i}.post_mlp_layernorm",
}
PUBLISHED_NAMES = PublishedNames(
    renamed={
        "encoder.layers.": "layers.",
        "emb_ln.": "embeddings.LayerNorm.",
        ".attn.out_proj.": ".self_attn.o_proj.",
        ".fc11.": ".up_proj.",
        ".fc12.": ".gate_proj.",
        ".fc2.": ".down_proj.",
        ".norm1.": ".post_attention_layernorm.",
        ".norm2.": ".post_mlp_layernorm.",
    },
    joined={".attn.Wqkv.": (".self_attn.q_proj.", ".self_attn.k_proj.", ".self_attn.v_proj.")},
)
_THETA = 1000.0


def shape(config: Mapping[str, Any], *, theta: float = _THETA) -> EncoderShape:
    """The sizes of an encoder built like this one, with the base of its rotary positions where none is named."""
    width, num_heads = config["hidden_size"], config["num_attention_heads"]
    head_width = config.get("head_dim") or width // num_heads
    if head_width * num_heads != width or head_width % 2:
        rule = "hidden_size must be num_attention_heads times an even head_dim"
        raise ValueError(f"{rule}, but got {width}, {num_heads} and {head_width}")
    return EncoderShape(
        model_type=config["model_type"],
        vocab_size=config["vocab_size"],
        hidden_size=width,
        num_layers=config["num_hidden_layers"],
        num_heads=num_heads,
        intermediate_size=config["intermediate_size"],
        max_positions=config["max_position_embeddings"],
        type_vocab_size=config.get("type_vocab_size", 2),
        embedding_size=width,
        layer_norm_eps=config.get("layer_norm_eps", 1e-12),
        activation=config.get("hidden_act", "silu"),
        hidden_dropout=config.get("hidden_dropout_prob", 0.0),
        attention_dropout=config.get("attention_probs_dropout_prob", 0.0),
        has_pooler=False,
        embeds_positions=False,
        pooling="first",
        is_gated=True,
        has_attention_bias=False,
        has_feedforward_bias=False,
        thetas=(_rotary_base(config, theta),) * config["num_hidden_layers"],
    )


def library_config(shape: EncoderShape) -> dict[str, Any]:
    return {"rope_parameters": {"rope_type": "default", "rope_theta": shape.thetas[0]}}


def _rotary_base(config: Mapping[str, Any], default: float) -> float:
    given = config.get("rope_parameters") or config.get("rope_scaling") or {}
    kind = given.get("rope_type", given.get("type", "default"))
    if kind != "default":
        raise ValueError(f"rotary positions must be of rope_type default, but got {kind!r}")
    return float(given.get("rope_theta", config.get("rope_theta", default)))
