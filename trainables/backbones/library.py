"""Encoders of no family: whatever text encoder transformers has in its own classes, computed by these.

What changes layers cannot work on them, and their trials run alone, but for methods that only read what they give.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping
from typing import Any

import torch

from trainables.nn.encoder_shape import EncoderShape, LibraryModel
from trainables.nn.library import build


def shape(config: Mapping[str, Any]) -> EncoderShape:
    """The sizes of a model that transformers knows.

    Raises `ValueError` with one sentence where it knows none of this `model_type`, or one that is no text encoder.
    """
    return _shape(json.dumps(dict(config), sort_keys=True))


@functools.lru_cache(maxsize=16)
def _shape(text: str) -> EncoderShape:
    config: Mapping[str, Any] = json.loads(text)
    name = config.get("model_type")
    if fault := _fault(str(name), config):
        raise ValueError(fault)
    try:
        with torch.device("meta"):
            model = build(text)
    except Exception as error:  # whatever the library has to say against it
        raise ValueError(f"transformers' own classes do not make a {name} of its config.json: {error}") from None
    sizes, words = model.config, model.get_input_embeddings()
    needed = ("vocab_size", "hidden_size", "num_hidden_layers")
    if words is None or any(_first(sizes, None, each) is None for each in needed):
        raise ValueError(f"a {name} must have words embedded, and {', '.join(needed)} in its config.json, but has not")
    held = [parameter for _, parameter in model.named_parameters(remove_duplicate=False)]
    if len({id(parameter) for parameter in held}) != len(held):
        raise ValueError(
            f"a {name} in transformers' own classes shares weights among its modules, which is not followed"
        )
    dropout = _first(sizes, 0.1, "hidden_dropout_prob", "hidden_dropout", "dropout")
    return EncoderShape(
        model_type=str(name),
        vocab_size=sizes.vocab_size,
        hidden_size=sizes.hidden_size,
        num_layers=sizes.num_hidden_layers,
        num_heads=_first(sizes, 1, "num_attention_heads"),
        intermediate_size=_first(sizes, 4 * sizes.hidden_size, "intermediate_size"),
        max_positions=_first(sizes, 512, "max_position_embeddings"),
        type_vocab_size=_first(sizes, 0, "type_vocab_size"),
        embedding_size=words.weight.shape[1],
        position_offset=_first_position(model, sizes.pad_token_id or 0),
        hidden_dropout=float(dropout),
        has_pooler=False,
        pooling="first",
        library=LibraryModel(
            config=text,
            prefix=f"{model.base_model_prefix}.",
            params=sum(parameter.numel() for parameter in held),
            embedding_params=words.weight.numel(),
        ),
    )


def _first_position(model: Any, padding: int) -> int:
    """The position of a text's first word: where positions count from after the padding's, what is below is no word's.

    Models do so by a method of their embeddings, or by a function that no one sees; then their table has a row for it.
    """
    for name, module in model.named_modules():
        if hasattr(module, "create_position_ids_from_input_ids"):
            return padding + 1
        if name.endswith("position_embeddings") and (row := getattr(module, "padding_idx", None)) is not None:
            return int(row) + 1
    return 0


def _fault(name: str, config: Mapping[str, Any]) -> str | None:
    """Why a model_type is none that is computed by the library's classes; None where it is."""
    from transformers.models.auto import modeling_auto as known

    if name not in known.MODEL_MAPPING_NAMES:
        return f"unknown model_type {name!r}"
    if config.get("is_encoder_decoder") or name in known.MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES:
        return f"model_type {name!r} is an encoder with a decoder, which makes texts of texts: name an encoder instead"
    if name not in known.MODEL_FOR_MASKED_LM_MAPPING_NAMES:
        if name in known.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES:
            return (
                f"model_type {name!r} is a decoder, whose words do not see what follows them: name an encoder instead"
            )
        return f"model_type {name!r} is no encoder of texts that was trained on masked words"
    return None


def _first(config: Any, default: Any, *names: str) -> Any:
    """The first of a configuration's entries that is there."""
    return next((value for name in names if (value := getattr(config, name, None)) is not None), default)
