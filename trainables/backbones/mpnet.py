"""MPNet (Song et al. 2020): BERT's layers with a bias of the scores by distance, one table for all layers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from trainables.backbones import bert
from trainables.nn.encoder_shape import EncoderShape, RelativeBias

MODEL_TYPES = ("mpnet",)
PREFIX = "mpnet."
TENSORS: Mapping[str, str | tuple[str, ...]] = {
    **{name: theirs for name, theirs in bert.TENSORS.items() if name != "embeddings.token_type"},
    "embeddings.relative": "encoder.relative_attention_bias",
    "layers.{i}.attention.qkv": tuple(f"encoder.layer.{{i}}.attention.attn.{part}" for part in "qkv"),
    "layers.{i}.attention_output.dense": "encoder.layer.{i}.attention.attn.o",
    "layers.{i}.attention_output.layernorm": "encoder.layer.{i}.attention.LayerNorm",
}
# transformers has 32 buckets and padding at position 1, whatever a configuration says.
_NUM_BUCKETS, _FIRST_POSITION = 32, 2


def shape(config: Mapping[str, Any]) -> EncoderShape:
    rows = config.get("relative_attention_num_buckets", _NUM_BUCKETS)
    if rows < _NUM_BUCKETS:
        raise ValueError(f"relative_attention_num_buckets must be at least {_NUM_BUCKETS}, but got {rows}")
    plain = bert.shape({**config, "type_vocab_size": 0}, offset=_FIRST_POSITION, pooling="first")
    return replace(plain, relative=RelativeBias(num_rows=rows, num_buckets=_NUM_BUCKETS))


def library_config(shape: EncoderShape) -> dict[str, Any]:
    assert isinstance(shape.relative, RelativeBias)
    return {"relative_attention_num_buckets": shape.relative.num_rows}
