"""ModernBERT (Warner et al. 2024): LayerNorms before the sub-layers, rotary positions, gated feed-forward, few biases.

Every third layer attends to the whole text, and the others to what is near: `local_attention` word pieces, half of them
to either side.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from trainables.nn.encoder_shape import EncoderShape

MODEL_TYPES = ("modernbert",)
PREFIX = "model."
TENSORS: Mapping[str, str | tuple[str, ...]] = {
    "embeddings.word": "embeddings.tok_embeddings",
    "embeddings.layernorm": "embeddings.norm",
    "layers.{i}.attention_norm": "layers.{i}.attn_norm",
    "layers.{i}.attention.qkv": "layers.{i}.attn.Wqkv",
    "layers.{i}.attention_output.dense": "layers.{i}.attn.Wo",
    "layers.{i}.feedforward_norm": "layers.{i}.mlp_norm",
    "layers.{i}.intermediate": "layers.{i}.mlp.Wi",
    "layers.{i}.feedforward_output.dense": "layers.{i}.mlp.Wo",
    "final_norm": "final_norm",
}
_KINDS = ("full_attention", "sliding_attention")
_POOLINGS = {"cls": "first", "mean": "mean"}


def shape(config: Mapping[str, Any]) -> EncoderShape:
    num_layers, num_heads = config["num_hidden_layers"], config["num_attention_heads"]
    kinds = _layer_kinds(config, num_layers)
    thetas = dict(zip(_KINDS, _thetas(config), strict=True))
    windows = {"full_attention": 0, "sliding_attention": config.get("local_attention", 128) // 2}
    if windows["sliding_attention"] < 1:
        raise ValueError(f"local_attention must be 2 at least, but got {config['local_attention']!r}")
    pooling = config.get("classifier_pooling", "cls")
    if pooling not in _POOLINGS:
        raise ValueError(f"classifier_pooling must be cls or mean, but got {pooling!r}")
    if config["hidden_size"] % (2 * num_heads):
        rule = f"hidden_size must be a multiple of twice num_attention_heads, {2 * num_heads}"
        raise ValueError(f"{rule}, so that each head's numbers can be paired, but got {config['hidden_size']}")
    return EncoderShape(
        model_type=config["model_type"],
        vocab_size=config["vocab_size"],
        hidden_size=config["hidden_size"],
        num_layers=num_layers,
        num_heads=num_heads,
        intermediate_size=config["intermediate_size"],
        max_positions=config["max_position_embeddings"],
        type_vocab_size=0,
        embedding_size=config["hidden_size"],
        layer_norm_eps=config.get("norm_eps", 1e-5),
        activation=config.get("hidden_activation", "gelu"),
        hidden_dropout=config.get("mlp_dropout", 0.0),
        attention_dropout=config.get("attention_dropout", 0.0),
        embedding_dropout=config.get("embedding_dropout", 0.0),
        head_dropout=config.get("classifier_dropout", 0.0),
        has_pooler=False,
        embeds_positions=False,
        pooling=_POOLINGS[pooling],
        is_pre_norm=True,
        is_gated=True,
        has_attention_bias=config.get("attention_bias", False),
        has_feedforward_bias=config.get("mlp_bias", False),
        has_norm_bias=config.get("norm_bias", False),
        thetas=tuple(thetas[kind] for kind in kinds),
        windows=tuple(windows[kind] for kind in kinds),
    )


def _layer_kinds(config: Mapping[str, Any], num_layers: int) -> list[str]:
    """Whether each layer sees everything, as the configuration lists or counts it."""
    every = config.get("global_attn_every_n_layers", 3)
    kinds = config.get("layer_types") or [_KINDS[layer % every > 0] for layer in range(num_layers)]
    if len(kinds) != num_layers or any(kind not in _KINDS for kind in kinds):
        raise ValueError(f"layer_types must name {num_layers} layers, each {' or '.join(_KINDS)}, but got {kinds!r}")
    return list(kinds)


def _thetas(config: Mapping[str, Any]) -> tuple[float, float]:
    """The base of rotary positions in layers that see everything, and in the others."""
    whole = float(config.get("global_rope_theta", 160_000.0))
    near = config.get("local_rope_theta", 10_000.0)
    defaults = (whole, whole if near is None else float(near))
    given = config.get("rope_parameters") or {}
    parameters = [given.get(kind) or {} for kind in _KINDS]
    kinds = [
        each.get("rope_type", each.get("type", "default")) for each in (*parameters, config.get("rope_scaling") or {})
    ]
    if scaled := [kind for kind in kinds if kind != "default"]:
        raise ValueError(f"rotary positions must be of rope_type default, but got {scaled[0]!r}")
    found = [float(each.get("rope_theta", default)) for each, default in zip(parameters, defaults, strict=True)]
    return found[0], found[1]
