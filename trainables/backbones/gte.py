"""GTE of version 1.5 and mGTE (Zhang et al. 2024): Nomic BERT's layers with biases of all products but two.

What is read are checkpoints of transformers' own class; see `nomic_bert` for those published before it had one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from trainables.backbones import nomic_bert
from trainables.backbones.published_names import PublishedNames
from trainables.nn.encoder_shape import EncoderShape

MODEL_TYPES = ("gte",)
PREFIX = "gte."
TENSORS = nomic_bert.TENSORS
PUBLISHED_NAMES = PublishedNames(
    renamed={
        "encoder.layer.": "layers.",
        ".attention.o_proj.": ".self_attn.o_proj.",
        ".attn_ln.": ".post_attention_layernorm.",
        ".mlp_ln.": ".post_mlp_layernorm.",
    },
    joined={
        ".attention.qkv_proj.": (".self_attn.q_proj.", ".self_attn.k_proj.", ".self_attn.v_proj."),
        ".mlp.up_gate_proj.": (".mlp.up_proj.", ".mlp.gate_proj."),
    },
)
library_config = nomic_bert.library_config
_DEFAULTS: Mapping[str, Any] = {"hidden_act": "gelu", "type_vocab_size": 1, "hidden_dropout_prob": 0.1}
_THETA = 160_000.0


def shape(config: Mapping[str, Any]) -> EncoderShape:
    plain = nomic_bert.shape({**_DEFAULTS, **config}, theta=_THETA)
    return replace(plain, has_attention_bias=True, has_down_bias=True, drops_gated=True)
