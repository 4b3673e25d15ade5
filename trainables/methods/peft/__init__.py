"""Any tuner of huggingface/peft that works on encoders, by its `peft_type`, on the Hugging Face model of the backbone.

It needs the extra `peft`. Trials train in packs of one, and pass through the library's and transformers' modules, so
they are slower than the methods that are built in; `lora` is one of those.

Measured with peft 0.21 on BERT, RoBERTa, ELECTRA and DistilBERT, these train: ADALORA, BEFT, BOFT, C3A, CARTRIDGE (not
on DistilBERT), DEFT, DELORA, DORA (LORA with `use_dora`), FOURIERFT, GLORA, GRALORA, HIRA, HRA, IA3, LILY, LN_TUNING,
LOHA, LOKR, LORA, MISS, OFT, P_TUNING, PEANUT, PREFIX_TUNING (not on DistilBERT), PROMPT_TUNING, PSOFT, PVERA, RANDLORA,
ROAD, SHIRA, SUPERTUNING, TINYLORA, TRAINABLE_TOKENS, UNILORA, VBLORA, VERA, WAVEFT. `REFUSED` says why others do not.

ADALORA prunes the ranks it begins with; it is counted before it does.

Virtual tokens of PROMPT_TUNING and P_TUNING stand before the text and take up its first positions, as in the library;
the head reads the text's own first token (the library's classifiers read the first virtual one). With PREFIX_TUNING
and CARTRIDGE the text's positions start after the prefix, as in the library.
"""

from __future__ import annotations

import copy
import dataclasses
import functools
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from trainables.backbones import checkpoint_names
from trainables.faults import unknown_name
from trainables.methods import ALONE, Alone
from trainables.methods.peft.body import build_body
from trainables.nn.encoder import Encoder
from trainables.nn.encoder_shape import EncoderShape

_DECODER = "it is for models that generate text"
_DECOMPOSES = "it decomposes every adapted weight before it can even say how large it is, a minute on BERT-base"
_SEVERAL_TASKS = "it trains on several tasks at once, and a trial has one"
# Types the library knows that cannot train here -> why.
REFUSED = {
    "ADAMSS": _DECOMPOSES,
    "ADAPTION_PROMPT": _DECODER,
    "CPT": _DECODER,
    "FROD": _DECOMPOSES,
    "MULTITASK_PROMPT_TUNING": _SEVERAL_TASKS,
    "OSF": "it projects gradients by hooks on its tensors, which a pack replaces by views of the trial's own numbers",
    "POLY": _SEVERAL_TASKS,
    "SHADOW": _DECODER,
    "XLORA": "it mixes adapters that are already trained",
}
# The backbones whose models are built here in transformers' own classes.
_FAMILIES = (
    "bert", "camembert", "data2vec-text", "deberta-v2", "distilbert", "electra", "ernie", "mpnet", "roberta",
    "xlm-roberta",
)  # fmt: skip
# Initialisations of LORA that look at training data first, which a method does not see.
_DATA_DRIVEN = ("eva", "corda", "lora_ga")
# Fields that adaptune sets itself.
_OURS = {
    "auto_mapping", "base_model_name_or_path", "inference_mode", "num_attention_heads", "num_layers",
    "num_transformer_submodules", "peft_type", "peft_version", "revision", "task_type", "token_dim",
    "total_step",
}  # fmt: skip
# AdaLoRA is told the number of steps when it takes its first.
_ANY_STEPS = 1_000_000
_ALPHAS = ("lora_alpha", "alpha", "randlora_alpha", "psoft_alpha")


@dataclass(frozen=True, kw_only=True)
class Options:
    """A tuner and its settings; None leaves what the library has, and 20 virtual tokens.

    `rank` is the library's `r` (the `target_r` of ADALORA, which begins with half as many more), `alpha` its
    `lora_alpha` or `alpha`. `target_modules` are names of modules of the Hugging Face model, separated by commas, or
    "all-linear"; without it, what the library adapts in BERT (query and value, mostly). `settings` is the text of
    a JSON object with any other fields of the tuner's configuration: '{"use_rslora": true}'.
    """

    peft_type: str = "IA3"
    rank: int | None = None
    alpha: float | None = None
    num_virtual_tokens: int | None = None
    target_modules: str | None = None
    settings: str = ""
    pooling: str = "auto"

    def faults(self, shape: EncoderShape) -> list[str]:
        return list(_faults(shape, self))


def adapt(view: Encoder, options: Sequence[Options], generators: Sequence[torch.Generator]) -> None:
    body = build_body(view, _configuration(view.shape, options[0]), generators[0])
    view.replace_body(body, view.shape.hidden_size)


@functools.lru_cache(maxsize=256)
def trained_params(shape: EncoderShape, options: Options) -> int:
    """Counted from the library's own modules, built without memory; the tests hold closed formulas of common ones."""
    with torch.device("meta"):
        body = build_body(_encoder(shape), _configuration(shape, options), torch.Generator("cpu"))
    return sum(parameter.numel() for parameter in body.parameters() if parameter.requires_grad)


def trial_faults(options: Options, shape: EncoderShape, max_length: int, num_steps: int | None) -> list[str]:
    """What the body would only say once it meets a text of `max_length`, or takes its first step."""
    configuration, faults = _configuration(shape, options), []
    virtual = configuration.num_virtual_tokens if configuration.is_prompt_learning else 0
    if virtual + max_length > shape.max_length:
        rule = f"must be at most {shape.max_length - virtual}, the backbone's positions less {virtual} virtual tokens"
        faults.append(f"max_length: {rule} of peft, but got {max_length}")
    if options.peft_type == "ADALORA" and num_steps is not None:
        tinit, tfinal = configuration.tinit, configuration.tfinal
        if num_steps <= tinit + tfinal:
            rule = f"tinit {tinit} and tfinal {tfinal} must leave steps to prune in, but the trial has {num_steps}"
            faults.append(f"peft.settings: {rule}; train for more epochs, or in smaller batches")
    return faults


@functools.lru_cache(maxsize=8)
def _encoder(shape: EncoderShape) -> Encoder:
    """Without memory; building a body leaves it as it is."""
    with torch.device("meta"):
        return Encoder(shape)


def stack_key(options: Options) -> Alone:
    return ALONE


def tuned_model(view: Encoder) -> Any:
    """The library's own model, tuner included, of a view that this method has adapted."""
    assert view.body is not None  # which `adapt` replaced
    return view.body.model


def merged_tensors(view: Encoder) -> dict[str, torch.Tensor]:
    """A view's tensors by a checkpoint's names, what the tuner trained merged into them; float32 copies.

    Raises `ValueError` where the tuner is none that can be merged.
    """
    model = copy.deepcopy(tuned_model(view))
    try:
        plain = model.merge_and_unload()
    except (AttributeError, NotImplementedError, TypeError, ValueError) as error:
        kind = model.active_peft_config.peft_type
        raise ValueError(f"peft does not merge {getattr(kind, 'value', kind)} into weights ({error})") from None
    found = {name: tensor.detach().float().cpu().clone() for name, tensor in plain.state_dict().items()}
    pooler = {} if view.pooler is None else dict(view.pooler.named_parameters())
    names = checkpoint_names(view.shape)
    own = {names[f"pooler.{leaf}"][0]: tensor.detach().float().cpu().clone() for leaf, tensor in pooler.items()}
    return found | own


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is no number of JSON's")


@functools.lru_cache(maxsize=256)
def _faults(shape: EncoderShape, options: Options) -> tuple[str, ...]:
    try:
        types = _types()
    except ImportError:
        return ("peft_type: tuners of huggingface/peft need that library: pip install 'adaptune[peft]'",)
    if shape.model_type not in _FAMILIES:
        rule = f"tuners of huggingface/peft train {', '.join(_FAMILIES)}"
        return (f"peft_type: {rule}, but not yet a {shape.model_type}, which `lora` and `adapter` train",)
    if reason := REFUSED.get(options.peft_type):
        return (f"peft_type: {options.peft_type} cannot be trained here: {reason}",)
    if options.peft_type not in types:
        return (f"peft_type: {unknown_name('type of tuner', options.peft_type, types.keys() - REFUSED.keys())}",)
    kind = types[options.peft_type]
    known = {field.name for field in dataclasses.fields(kind)} - _OURS
    faults = [
        f"{name}: {options.peft_type} has none; its settings are {', '.join(sorted(known))}"
        for name, fields in _FIELDS.items()
        if getattr(options, name) is not None and not known.intersection(fields)
    ]
    try:
        given = json.loads(options.settings or "{}", parse_constant=_refuse)
    except (ValueError, RecursionError) as error:
        return (*faults, f"settings: must be the text of a JSON object, but {options.settings!r} is not: {error}")
    if not isinstance(given, dict):
        return (*faults, f"settings: must be the text of a JSON object, but got {options.settings!r}")
    faults += [f"settings: {unknown_name(f'field of {options.peft_type}', n, known)}" for n in given if n not in known]
    faults += _rules(shape, options, given)
    if not faults:
        try:
            trained_params(shape, options)
        except Exception as error:  # whatever the library has to say against it
            faults.append(f"settings: {options.peft_type} refuses this on a {shape.model_type} of its size: {error}")
    return tuple(faults)


def _rules(shape: EncoderShape, options: Options, given: Mapping[str, Any]) -> list[str]:
    """What the library would not say, or would say too late."""
    faults = []
    if given.get("init_lora_weights") in _DATA_DRIVEN:
        faults.append(f"settings: init_lora_weights {given['init_lora_weights']!r} needs training data to begin with")
    if given.get("prompt_tuning_init") == "TEXT":
        faults.append(
            "settings: prompt_tuning_init must be RANDOM or SAMPLE_VOCAB: a text would need its own tokenizer"
        )
    if options.peft_type in ("PREFIX_TUNING", "CARTRIDGE") and shape.model_type == "distilbert":
        faults.append(f"peft_type: {options.peft_type} gives keys and values, which DistilBERT in transformers ignores")
    if options.rank is not None and not 1 <= options.rank <= 65_536:  # what suits a layer, the library says
        faults.append(f"rank: must be in [1, 65536], but got {options.rank}")
    if options.num_virtual_tokens is not None and not 1 <= options.num_virtual_tokens < shape.max_length:
        rule = f"must be in [1, {shape.max_length - 1}], the backbone's positions less one for the text"
        faults.append(f"num_virtual_tokens: {rule}, but got {options.num_virtual_tokens}")
    return faults


# Our option -> the library's fields it may stand for, of which a type has at most one.
_FIELDS = {
    "rank": ("r",),
    "alpha": _ALPHAS,
    "num_virtual_tokens": ("num_virtual_tokens",),
    "target_modules": ("target_modules",),
}


@functools.cache
def _types() -> Mapping[str, Any]:
    """The types of tuners the installed library knows, with their configurations."""
    from peft import LoraConfig
    from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING

    return {str(kind.value): config for kind, config in PEFT_TYPE_TO_CONFIG_MAPPING.items()} | {"DORA": LoraConfig}


def _configuration(shape: EncoderShape, options: Options) -> Any:
    """The library's configuration of options that have no faults."""
    kind = _types()[options.peft_type]
    known = {field.name for field in dataclasses.fields(kind)}
    values: dict[str, Any] = {"task_type": "FEATURE_EXTRACTION"}
    if "num_virtual_tokens" in known:
        values |= {"num_virtual_tokens": 20, "num_layers": shape.num_layers, "num_transformer_submodules": 1}
        # Prompts are added to word embeddings; prefixes to keys and values.
        is_prefix = options.peft_type in ("PREFIX_TUNING", "CARTRIDGE")
        values |= {
            "token_dim": shape.hidden_size if is_prefix else shape.embedding_size,
            "num_attention_heads": shape.num_heads,
        }
    if options.peft_type == "ADALORA":  # the ratio of the library's own defaults
        values |= {"total_step": _ANY_STEPS}
        if options.rank is not None:
            values |= {"target_r": options.rank, "init_r": options.rank + options.rank // 2}
    if options.peft_type == "DORA":
        values["use_dora"] = True
    if "target_modules" in known:
        values |= _targets(shape, options)
    for name, fields in _FIELDS.items():
        value = getattr(options, name)
        if value is not None and name != "target_modules" and (name, options.peft_type) != ("rank", "ADALORA"):
            values[next(field for field in fields if field in known)] = value
    return kind(**values | json.loads(options.settings or "{}"))


def _targets(shape: EncoderShape, options: Options) -> dict[str, Any]:
    """The modules to adapt, by their names in the Hugging Face model."""
    names = _NAMES.get(shape.model_type, _NAMES["bert"])
    if options.target_modules == "all-linear":
        targets: Any = "all-linear"
    elif options.target_modules is not None:
        targets = [name.strip() for name in options.target_modules.split(",")]
    else:
        targets = names.get(options.peft_type, names["any"])
    found = {"target_modules": targets}
    if options.peft_type == "IA3":  # of the sub-layers' ends the input is scaled, of the others the output
        found["feedforward_modules"] = [name for name in targets if name in names["ends"]]
    if options.peft_type == "TRAINABLE_TOKENS":
        found["target_modules"] = targets if options.target_modules is not None else ["word_embeddings"]
    return found


# What is adapted unless told otherwise: what the library says for BERT, and its counterparts in DistilBERT.
_NAMES: dict[str, dict[str, list[str]]] = {
    "bert": {
        "any": ["query", "value"],
        "BEFT": ["value"],
        "IA3": ["key", "value", "output.dense"],
        "LN_TUNING": ["LayerNorm"],
        "ends": ["output.dense"],
    },
    "distilbert": {
        "any": ["q_lin", "v_lin"],
        "BEFT": ["v_lin"],
        "IA3": ["k_lin", "v_lin", "out_lin", "lin2"],
        "LN_TUNING": ["LayerNorm", "sa_layer_norm", "output_layer_norm"],
        "ends": ["out_lin", "lin2"],
    },
}
