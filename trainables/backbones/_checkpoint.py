"""Checkpoints of the BERT family: their sizes and how their tensor names map into our encoder.

A family is one row of `FAMILIES`; to add one, say where its configuration keeps what and how its tensors are named.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from trainables.faults import unknown_name
from trainables.nn.encoder_shape import EncoderShape
from trainables.nn.layers import ACTIVATIONS

# Our name -> name in a checkpoint, prefix such as "bert." left out. The three parts of qkv are stacked in this order.
_BERT = {
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
_DISTILBERT = {
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


def _bert_shape(config: Mapping[str, Any], *, offset: int = 0, has_pooler: bool = True) -> EncoderShape:
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
        embedding_size=config.get("embedding_size") or config["hidden_size"],
        position_offset=offset,
        layer_norm_eps=config.get("layer_norm_eps", 1e-12),
        activation=config.get("hidden_act", "gelu"),
        hidden_dropout=config.get("hidden_dropout_prob", 0.1),
        attention_dropout=config.get("attention_probs_dropout_prob", 0.1),
        has_pooler=has_pooler,
    )


def _roberta_shape(config: Mapping[str, Any]) -> EncoderShape:
    return _bert_shape(config, offset=config.get("pad_token_id", 1) + 1)


def _distilbert_shape(config: Mapping[str, Any]) -> EncoderShape:
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
    )


# model_type of a configuration -> (its shape, its tensor names)
FAMILIES: dict[str, tuple[Callable[[Mapping[str, Any]], EncoderShape], Mapping[str, Any]]] = {
    "bert": (_bert_shape, _BERT),
    "roberta": (_roberta_shape, _BERT),
    "xlm-roberta": (_roberta_shape, _BERT),
    "electra": (lambda config: _bert_shape(config, has_pooler=False), _BERT),
    "distilbert": (_distilbert_shape, _DISTILBERT),
}


def shape_of(config: Mapping[str, Any]) -> EncoderShape:
    """The shape a Hugging Face configuration describes.

    Raises `ValueError` with one sentence where it is of another family, lacks a size or computes what we do not.
    """
    model_type = config.get("model_type")
    if model_type not in FAMILIES:
        raise ValueError(unknown_name("model_type", model_type, FAMILIES))
    try:
        shape = FAMILIES[model_type][0](config)
    except KeyError as missing:
        raise ValueError(f"config.json of a {model_type} must hold {missing.args[0]!r}, but it does not") from None
    if shape.activation not in ACTIVATIONS:
        raise ValueError(unknown_name("activation", shape.activation, ACTIVATIONS))
    return shape


def map_tensors(shape: EncoderShape, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A checkpoint's tensors under our names, in float32, query, key and value joined.

    A checkpoint without a pooler (ELECTRA, DistilBERT, some RoBERTa) gives none. Raises `ValueError` naming every
    tensor that is missing.
    """
    plain = {_plain_name(shape.model_type, name): tensor for name, tensor in tensors.items()}
    mapped, missing = {}, []
    for ours, theirs in checkpoint_names(shape).items():
        absent = [name for name in theirs if name not in plain]
        if absent and not ours.startswith("pooler"):
            missing += absent
        elif not absent:
            parts = [plain[name].to(torch.float32) for name in theirs]
            mapped[ours] = parts[0] if len(parts) == 1 else torch.cat(parts)
    if missing:
        raise ValueError(f"the checkpoint must hold these tensors, but lacks {len(missing)}: {', '.join(missing[:5])}")
    return mapped


def checkpoint_names(shape: EncoderShape) -> dict[str, tuple[str, ...]]:
    """Our parameter name -> the checkpoint's tensor names it is made of, model prefix left out."""
    names = {}
    for ours, theirs in FAMILIES[shape.model_type][1].items():
        if (ours == "embeddings.project" and shape.embedding_size == shape.hidden_size) or (
            ours == "pooler" and not shape.has_pooler
        ):
            continue
        sources = theirs if isinstance(theirs, tuple) else (theirs,)
        leaves = ("weight",) if ours in ("embeddings.word", "embeddings.position", "embeddings.token_type") else None
        for i in range(shape.num_layers) if "{i}" in ours else (0,):
            for leaf in leaves or ("weight", "bias"):
                names[f"{ours.format(i=i)}.{leaf}"] = tuple(f"{source.format(i=i)}.{leaf}" for source in sources)
    return names


def _plain_name(model_type: str, name: str) -> str:
    name = re.sub(rf"^{model_type.replace('xlm-', '')}\.", "", name)
    # Checkpoints converted from TensorFlow call a LayerNorm's weight gamma and its bias beta.
    return name.replace("LayerNorm.gamma", "LayerNorm.weight").replace("LayerNorm.beta", "LayerNorm.bias")
