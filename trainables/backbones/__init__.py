"""Backbones: pre-trained encoders. `loading` finds, describes and loads one; a file here is a family of them.

A family says how checkpoints of one architecture map into `trainables.nn`. To add one, write
`trainables/backbones/<name>.py`: what it holds is `Family`. Its `MODEL_TYPES` are what a checkpoint's config.json calls
it, by which it is found; the contract test of all families runs over it the moment it exists.
"""

from __future__ import annotations

import dataclasses
import functools
import importlib
import sys
from collections.abc import Mapping
from typing import Any, Protocol, cast

import torch
from torch import Tensor

from trainables.backbones import library
from trainables.backbones.config_values import value_faults
from trainables.backbones.refusals import foreign_prefix
from trainables.discovery import plugin_names
from trainables.faults import unknown_name
from trainables.nn.encoder import Encoder
from trainables.nn.encoder_shape import EncoderShape
from trainables.nn.layers import ACTIVATIONS

# What weights may be kept in: numbers that are the weights, and no codes of them.
_DTYPES = (torch.float64, torch.float32, torch.float16, torch.bfloat16)


class Family(Protocol):
    """What a file of a family holds.

    `TENSORS` maps our name of a module to its name in a checkpoint, `PREFIX` left out. `{i}` is a layer, or the number
    of its set of weights where layers share some. Query, key and value may be three names, stacked in this order.
    Modules that an encoder's shape lacks may stand there.
    """

    MODEL_TYPES: tuple[str, ...]
    PREFIX: str
    TENSORS: Mapping[str, str | tuple[str, ...]]

    def shape(self, config: Mapping[str, Any]) -> EncoderShape:
        """The sizes that a Hugging Face configuration describes.

        Raises `KeyError` where it lacks one, `ValueError` where it asks for what we do not compute.

        A family whose shape transformers builds from more than its sizes may also hold `library_config(shape)`, the
        entries of a Hugging Face configuration that say it, and `PUBLISHED_NAMES` where transformers writes checkpoints
        under other names than its modules have.
        """
        ...


def families() -> dict[str, Family]:
    """Every family by the `model_type` of its configurations."""
    return _families(tuple(plugin_names(sys.modules[__name__])))


@functools.lru_cache(maxsize=4)
def _families(names: tuple[str, ...]) -> dict[str, Family]:
    modules = [importlib.import_module(f"{__name__}.{name}") for name in names]
    # `loading` and what it is made of are files here too, and no families.
    found = [cast(Family, module) for module in modules if hasattr(module, "MODEL_TYPES")]
    return {model_type: family for family in found for model_type in family.MODEL_TYPES}


def shape_of(config: Mapping[str, Any]) -> EncoderShape:
    """The shape a Hugging Face configuration describes.

    Raises `ValueError` with one sentence where it is of another family, lacks a size or computes what we do not.
    """
    model_type = config.get("model_type")
    if "auto_map" in config:
        rule = "a model must be computed by transformers' own classes"
        raise ValueError(f"{rule}, but this one needs code from its repository (auto_map), which is never run")
    if model_type is None:
        raise ValueError("config.json must hold 'model_type', but it does not")
    known = families()
    for name in ("is_decoder", "add_cross_attention"):
        if config.get(name):
            raise ValueError(f"{name} must be false, for a decoder's tokens see only those before them, but got true")
    if faults := value_faults(config):
        raise ValueError("; ".join(faults))
    if model_type not in known:
        try:
            return library.shape(config)
        except ValueError as fault:  # near names are of other architectures: no suggestion
            raise ValueError(f"{fault}. Known: {', '.join(sorted(known))}, and other text encoders") from None
    try:
        shape = known[model_type].shape(config)
    except KeyError as missing:
        raise ValueError(f"config.json of a {model_type} must hold {missing.args[0]!r}, but it does not") from None
    if shape.activation not in ACTIVATIONS:
        raise ValueError(unknown_name("activation", shape.activation, ACTIVATIONS))
    if shape.hidden_size % shape.num_heads:
        rule = "a hidden size must be a multiple of the number of attention heads"
        raise ValueError(f"{rule}, but got {shape.hidden_size} and {shape.num_heads}")
    if shape.max_length < 1:
        rule = f"max_position_embeddings must be more than {shape.position_offset}, where positions begin"
        raise ValueError(f"{rule}, but got {shape.max_positions}")
    return shape


def map_tensors(shape: EncoderShape, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A checkpoint's tensors under our names, in float32, query, key and value joined.

    A checkpoint without a whole pooler (ELECTRA, DistilBERT, some RoBERTa) gives none. Raises `ValueError` naming
    tensors that are missing, or quantised.
    """
    prefix = prefix_of(shape)
    plain = {_plain_name(prefix, name): tensor for name, tensor in tensors.items()}
    if shape.library is None and (published := getattr(families()[shape.model_type], "PUBLISHED_NAMES", None)):
        plain = published.of_modules(plain)
    mapped, missing, quantised = {}, [], []
    for ours, theirs in checkpoint_names(shape).items():
        absent = [name for name in theirs if name not in plain]
        if absent and not ours.startswith("pooler"):
            missing += absent
        elif not absent:
            quantised += [f"{name} ({plain[name].dtype})" for name in theirs if plain[name].dtype not in _DTYPES]
            mapped[ours] = _joined({name: plain[name] for name in theirs})
    read = {name for theirs in checkpoint_names(shape).values() for name in theirs}
    if missing and (before := foreign_prefix(missing, plain.keys() - read)):
        own = prefix
        raise ValueError(
            f"the checkpoint must name its tensors like {missing[0]}, alone or after {own!r}, but puts {before!r} "
            f"before {len(missing)} of them: save the model that a wrapper such as DistributedDataParallel holds "
            "(wrapper.module.save_pretrained) instead of the wrapper"
        )
    if missing:
        raise ValueError(f"the checkpoint must hold these tensors, but lacks {len(missing)}: {', '.join(missing[:5])}")
    if quantised:
        raise ValueError(
            f"weights must be plain numbers, float16 to float64, but {len(quantised)} tensors are quantised, such as "
            f"{quantised[0]}: save what the model was quantised from, or what model.dequantize() gives"
        )
    pooler = {name for name in mapped if name.startswith("pooler.")}
    return mapped if len(pooler) != 1 else {name: tensor for name, tensor in mapped.items() if name not in pooler}


def shape_held(shape: EncoderShape, tensors: Mapping[str, Tensor]) -> EncoderShape:
    """The shape with a pooler where a checkpoint of these tensors holds one. Their values are not read.

    Raises `ValueError` where they are none of this shape.
    """
    mapped = map_tensors(shape, tensors)
    shape = dataclasses.replace(shape, has_pooler="pooler.weight" in mapped)
    with torch.device("meta"):
        Encoder(shape, mapped).check_masters()
    return shape


def prefix_of(shape: EncoderShape) -> str:
    """What stands before the names of an encoder's tensors in a checkpoint that has a head."""
    return families()[shape.model_type].PREFIX if shape.library is None else shape.library.prefix


def checkpoint_names(shape: EncoderShape) -> Mapping[str, tuple[str, ...]]:
    """Our parameter name -> the checkpoint's tensor names it is made of, model prefix left out."""
    return _checkpoint_names(shape)


@functools.lru_cache(maxsize=64)
def _checkpoint_names(shape: EncoderShape) -> Mapping[str, tuple[str, ...]]:
    with torch.device("meta"):
        ours = [name for name, _ in Encoder(shape).named_parameters()]
    if shape.library is not None:
        return {name: (name.removeprefix("library.model."),) for name in ours}
    tensors = families()[shape.model_type].TENSORS
    names = {}
    for name in ours:
        module, _, leaf = name.rpartition(".")
        parts, number = module.split("."), 0
        if parts[0] == "layers":
            number = shape.weights_of_layer(int(parts[1]))
            module = ".".join(["layers", "{i}", *parts[2:]])
        sources = tensors[module]
        sources = sources if isinstance(sources, tuple) else (sources,)
        names[name] = tuple(f"{source.format(i=number)}.{leaf}" for source in sources)
    return names


def _joined(parts: Mapping[str, Tensor]) -> Tensor:
    """Tensors one below the other, in float32. Raises `ValueError` where they are not of one width."""
    widths = {tensor.shape[1:] if tensor.dim() else None for tensor in parts.values()}
    if len(parts) > 1 and (len(widths) > 1 or None in widths):
        sizes = ", ".join(f"{name} is {tuple(tensor.shape)}" for name, tensor in parts.items())
        raise ValueError(f"tensors must have the configuration's sizes, but {sizes}, which cannot be joined")
    plain = [tensor.to(torch.float32) for tensor in parts.values()]
    if len(plain) == 1:
        return plain[0]
    if plain[0].is_meta:  # torch.cat of these would first load all of torch's compiler, which takes half a second
        num_rows = sum(tensor.shape[0] for tensor in plain)
        return torch.empty(num_rows, *plain[0].shape[1:], device="meta")
    return torch.cat(plain)


def _plain_name(prefix: str, name: str) -> str:
    # Checkpoints converted from TensorFlow call a LayerNorm's weight gamma and its bias beta.
    return (
        name.removeprefix(prefix)
        .replace("LayerNorm.gamma", "LayerNorm.weight")
        .replace("LayerNorm.beta", "LayerNorm.bias")
    )
