"""Whether the entries of a config.json are of the kind and in the range that they must be, whichever family it is."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

# What sizes may be: more than any model has, and few enough to be counted with.
_LARGEST, _MOST_LAYERS = 10_000_000, 10_000
_LAYERS = ("n_layers", "num_hidden_layers")
_SIZES = (
    "dim", "embedding_size", "head_dim", "hidden_dim", "hidden_size", "intermediate_size", "local_attention",
    "max_position_embeddings", "n_heads", "num_attention_heads", "num_hidden_groups",
    "relative_attention_num_buckets", "task_type_vocab_size", "vocab_size",
)  # fmt: skip
# 0: there is none of it.
_SIZES_OR_NONE = ("type_vocab_size",)
_REACHES = ("max_relative_positions", "position_buckets")  # where -1 is none
_RATES = (
    "attention_dropout", "attention_probs_dropout_prob", "classifier_dropout", "classifier_dropout_prob", "dropout",
    "embedding_dropout", "hidden_dropout_prob", "mlp_dropout",
)  # fmt: skip
_POSITIVE = ("global_rope_theta", "layer_norm_eps", "local_rope_theta", "norm_eps", "rope_theta")
_FLAGS = (
    "attention_bias", "mlp_bias", "norm_bias", "position_biased_input", "relative_attention", "share_att_key",
    "use_task_id",
)  # fmt: skip
_TEXTS = ("activation", "hidden_act", "hidden_activation")
_OBJECTS = ("rope_parameters", "rope_scaling")
# Where null is said of what a model does without, or has by itself.
_MAY_BE_NULL = ("classifier_dropout", "head_dim", "local_rope_theta", *_OBJECTS)


def value_faults(config: Mapping[str, Any]) -> list[str]:
    """What is wrong with the values of a configuration's entries, each by itself; what is absent is no fault."""
    return [
        f"{name} must be {rule}, but got {'null' if value is None else repr(value)}"
        for names, rule, keeps in _RULES
        for name in names
        if name in config and not (config[name] is None and name in _MAY_BE_NULL)
        for value in [config[name]]
        if not keeps(value)
    ]


def _is_whole(value: object, least: int, most: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and least <= value <= most


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


_Rule = tuple[tuple[str, ...], str, Callable[[Any], bool]]
_RULES: tuple[_Rule, ...] = (
    (_LAYERS, f"a whole number in [1, {_MOST_LAYERS}]", lambda value: _is_whole(value, 1, _MOST_LAYERS)),
    (_SIZES, f"a whole number in [1, {_LARGEST}]", lambda value: _is_whole(value, 1, _LARGEST)),
    (_SIZES_OR_NONE, f"a whole number in [0, {_LARGEST}]", lambda value: _is_whole(value, 0, _LARGEST)),
    (_REACHES, f"a whole number in [-1, {_LARGEST}]", lambda value: _is_whole(value, -1, _LARGEST)),
    (_RATES, "a number in [0, 1]", lambda value: _is_number(value) and 0 <= value <= 1),
    (_POSITIVE, "a number > 0", lambda value: _is_number(value) and value > 0),
    (_FLAGS, "true or false", lambda value: isinstance(value, bool)),
    (_TEXTS, "text", lambda value: isinstance(value, str)),
    (_OBJECTS, "an object", lambda value: isinstance(value, dict)),
)
