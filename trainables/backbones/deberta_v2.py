"""DeBERTa-v2 and -v3 (He et al. 2021, 2023): BERT's layers with disentangled attention, see `trainables.nn.relative`.

DeBERTa-v3 is built like v2 and differs in how it was trained. Its checkpoints embed no absolute positions.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from trainables.backbones import bert
from trainables.nn.encoder_shape import Disentangled, EncoderShape

MODEL_TYPES = ("deberta-v2",)
PREFIX = "deberta."
_SELF = "encoder.layer.{i}.attention.self"
TENSORS: Mapping[str, str | tuple[str, ...]] = {
    **{name: theirs for name, theirs in bert.TENSORS.items() if name not in ("embeddings.project", "pooler")},
    "embeddings.relative": "encoder.rel_embeddings",
    "embeddings.relative.layernorm": "encoder.LayerNorm",
    "layers.{i}.attention.qkv": tuple(f"{_SELF}.{part}_proj" for part in ("query", "key", "value")),
    "layers.{i}.attention.relative.key": f"{_SELF}.pos_key_proj",
    "layers.{i}.attention.relative.query": f"{_SELF}.pos_query_proj",
}
_PARTS = ("c2p", "p2c")


def shape(config: Mapping[str, Any]) -> EncoderShape:
    width = config["hidden_size"]
    only = {"conv_kernel_size": 0, "embedding_size": width}
    for name, value in only.items():
        if config.get(name, value) not in (value, None):
            raise ValueError(f"{name} of a deberta-v2 must be {value} or left out, but got {config[name]!r}")
    own_eps = {"layer_norm_eps": 1e-7, "type_vocab_size": 0}
    plain = bert.shape({**own_eps, **config}, has_pooler=False, pooling="first")
    embeds_positions = bool(config.get("position_biased_input", True))
    return replace(plain, embeds_positions=embeds_positions, relative=_design(config))


def library_config(shape: EncoderShape) -> dict[str, Any]:
    design = shape.relative
    if not isinstance(design, Disentangled):
        return {"relative_attention": False, "position_biased_input": shape.embeds_positions}
    uses = (design.content_to_position, design.position_to_content)
    return {
        "relative_attention": True,
        "position_biased_input": shape.embeds_positions,
        "pos_att_type": [part for part, is_used in zip(_PARTS, uses, strict=True) if is_used],
        "position_buckets": design.span if design.max_distance else -1,
        "max_relative_positions": design.max_distance or design.span,
        "share_att_key": design.shares_projections,
        "norm_rel_ebd": "layer_norm" if design.has_layernorm else "none",
    }


def _design(config: Mapping[str, Any]) -> Disentangled | None:
    given = config.get("pos_att_type") or ()
    parts = {part.strip() for part in (given.lower().split("|") if isinstance(given, str) else given)}
    if not config.get("relative_attention", False):
        if parts:
            raise ValueError(f"pos_att_type must be left out without relative_attention, but got {given!r}")
        return None
    if not parts or parts - set(_PARTS):
        raise ValueError(f"pos_att_type must be c2p, p2c or both, but got {given!r}")
    reach = config.get("max_relative_positions", -1)
    reach = config["max_position_embeddings"] if reach < 1 else reach
    buckets = config.get("position_buckets", -1)
    if buckets > 0 and not 2 <= buckets <= 2 * (reach - 2) + 1:
        rule = f"position_buckets must be at least 2, and half of them less than {reach - 1}"
        raise ValueError(f"{rule}, for distances beyond that share buckets up to {reach}, but got {buckets}")
    return Disentangled(
        span=buckets if buckets > 0 else reach,
        max_distance=reach if buckets > 0 else 0,
        content_to_position="c2p" in parts,
        position_to_content="p2c" in parts,
        shares_projections=bool(config.get("share_att_key", False)),
        has_layernorm="layer_norm" in str(config.get("norm_rel_ebd", "none")).lower(),
    )
