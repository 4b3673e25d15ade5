"""Folders of the library adapters (AdapterHub), which `AutoAdapterModel.load_adapter` opens.

The library holds adapters, LoRA and linear heads. What it has no place for is beside its files: trained LayerNorms in
`layernorms.safetensors`, by their names in the backbone, and a head that reads the mean in `head.safetensors`. The
card has the lines that apply both. The library needs an older transformers than adaptune, so what was written is
opened by adaptune's own reader of such folders, which is held against the library's folders (decision 0036).
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from trainables.backbones import prefix_of
from trainables.inference.adapters_folder import (
    CLASSES,
    HEAD_TYPES,
    LEAVES,
    LORA_TARGETS,
    PLACEMENTS,
    POOLED,
    end_names,
    layernorm_names,
    load_adapters_folder,
    turned,
)
from trainables.inference.equal_answers import reads_types
from trainables.inference.foreign_folder import notes_of
from trainables.inference.formats import Answer
from trainables.inference.model_card import READ, READS, write_card
from trainables.inference.padded_model import PaddedModel
from trainables.inference.predictor import Predictor
from trainables.inference.saved_names import (
    ADAPTER,
    CARD,
    CONFIG,
    HEAD,
    HEAD_CONFIG,
    LAYERNORMS,
    OWN_HEAD,
    OWN_NOTES,
)
from trainables.inference.stock_model import backbone_reference, linear_head, low_rank_changes
from trainables.methods import parse_options

NEEDS: tuple[tuple[str, ...], str] = ((), "")
VERSION = "adapters.1.3.0"  # whose folders these are


def write(predictor: Predictor, folder: Path) -> None:
    config, shape = predictor.config, predictor.model.encoder.shape
    if config.method not in ("adapter", "lora"):
        raise ValueError("adapters has equals of `adapter` and `lora` alone")
    if shape.model_type not in CLASSES:
        rule = f"adapters knows, with adapters where adaptune has them, {', '.join(CLASSES)}"
        raise ValueError(f"{rule}; a backbone of the family {shape.model_type} it does not, or otherwise")
    settings, tensors = _of_adapter(predictor) if config.method == "adapter" else _of_lora(predictor)
    base, revision = backbone_reference(predictor)
    about = {
        "hidden_size": shape.hidden_size,
        "model_class": CLASSES[shape.model_type],
        "model_name": base if revision is None else f"{base}@{revision}",
        "model_type": shape.model_type,
        "name": _name(predictor),
        "version": VERSION,
    }
    _write_json(folder / CONFIG, {"config": settings, **about})
    _write_tensors(folder / ADAPTER, tensors)
    weight, bias = linear_head(predictor.model)
    if (head := _head(predictor)) is None:
        _write_tensors(folder / OWN_HEAD, {"weight": weight, "bias": bias})
    else:
        _write_json(folder / HEAD_CONFIG, {"config": head, **about})
        place = f"heads.{_name(predictor)}.1"  # behind its dropout
        _write_tensors(folder / HEAD, {f"{place}.weight": weight, f"{place}.bias": bias})
    if norms := _layernorms(predictor):
        _write_tensors(folder / LAYERNORMS, norms)
    _write_json(folder / OWN_NOTES, notes_of(predictor))
    write_card(folder / CARD, predictor, library="adapters", usage=_usage(predictor), notes=_notes(predictor))


def open_(predictor: Predictor, folder: Path) -> Answer:
    back = load_adapters_folder(folder, device="cpu", precision="fp32", backbone=predictor.backbone)
    model = PaddedModel(back)

    def answer(inputs: Mapping[str, Tensor]) -> Tensor:
        logits: Tensor = model(**inputs)
        return logits

    return answer


def _name(predictor: Predictor) -> str:
    """What the library calls the adapter and its head: no dots, by which it finds modules."""
    return re.sub(r"\W+", "_", predictor.task.name).strip("_") or "adapter"


def _of_adapter(predictor: Predictor) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The library's configuration of bottleneck adapters, and their tensors by its names."""
    view = predictor.model.encoder
    options = parse_options("adapter", predictor.config.method_options)
    design, width = options.design(), view.shape.hidden_size
    other = {
        "depth": (design.depth, 1),
        "interaction": (design.interaction, "add"),
        "norm": (design.norm, "none"),
    }
    if odd := [f"{name} {came}" for name, (came, known) in other.items() if came != known]:
        raise ValueError(f"its adapters have one hidden layer, added and not normalised, but here {', '.join(odd)}")
    prefix = prefix_of(view.shape)
    tensors: dict[str, Tensor] = {}
    without: set[int] = set(range(view.shape.num_layers))
    for ours, theirs in end_names(view.shape).items():
        adapter = getattr(view.get_submodule(ours), "adapter", None)
        if adapter is not None:
            without.discard(int(ours.split(".")[1]))
            place = f"{prefix}{theirs}.adapters.{_name(predictor)}"
            tensors |= {f"{place}.{name}": turned(getattr(adapter, leaf)[0]) for leaf, name in LEAVES.items()}
    placed = PLACEMENTS[design.placement]
    settings = {
        **_BOTTLENECK,
        "mh_adapter": placed[0],
        "output_adapter": placed[1],
        "original_ln_before": placed[2],
        "is_parallel": placed[3],
        "leave_out": sorted(without),
        "non_linearity": design.activation,
        "reduction_factor": _factor(width, design.size),
        "scaling": float(design.scale),
    }
    return settings, tensors


def _of_lora(predictor: Predictor) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The library's configuration of low-rank changes, and their tensors by its names."""
    view = predictor.model.encoder
    options = parse_options("lora", predictor.config.method_options)
    targets = options.names()
    if odd := [name for name in targets if name not in LORA_TARGETS]:
        raise ValueError(f"it has no low-rank change of {', '.join(odd)}, the projection behind attention")
    prefix = prefix_of(view.shape)
    tensors: dict[str, Tensor] = {}
    for name, change in low_rank_changes(view).items():
        place = f"{prefix}{name}.loras.{_name(predictor)}"
        tensors |= {f"{place}.lora_A": change.down, f"{place}.lora_B": change.up}
    settings = {
        **_LORA,
        "selfattn_lora": any(name in targets for name in ("query", "key", "value")),
        "intermediate_lora": "up" in targets,
        "output_lora": "down" in targets,
        "attn_matrices": [name[0] for name in ("query", "key", "value") if name in targets],
        "r": options.rank,
        "alpha": options.alpha,
        "dropout": options.lora_dropout,
    }
    return settings, tensors


def _factor(width: int, size: int) -> float:
    """The library's reduction factor: the width by it, rounded down, is the size."""
    factor = width / size
    while int(width // factor) < size:
        factor = math.nextafter(factor, 0.0)
    return factor


def _head(predictor: Predictor) -> dict[str, Any] | None:
    """The library's settings of the head; None where no head of its reads what this one does."""
    task, view = predictor.task, predictor.model.encoder
    is_pooled = view.pooling == "pooler"
    if view.pooling == "mean" or (is_pooled and view.shape.model_type not in POOLED):
        return None
    names = {name: number for number, name in enumerate(task.label_names)} or None
    settings = {
        "head_type": HEAD_TYPES[task.kind],
        "num_labels": task.num_labels,
        "layers": 1,
        "activation_function": None,
        "label2id": names,
        "dropout_prob": None,
    }
    return settings if task.kind == "extractive_qa" else {**settings, "use_pooler": is_pooled, "bias": True}


def _layernorms(predictor: Predictor) -> dict[str, Tensor]:
    """Trained LayerNorms by their names in the backbone."""
    parameters = dict(predictor.model.encoder.named_parameters())
    names = layernorm_names(predictor.model.encoder.shape, predictor.model)
    return {theirs: parameters[ours][0] for ours, theirs in names.items()}


def _write_json(path: Path, values: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(values, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def _write_tensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    plain = {name: each.detach().to("cpu", torch.float32).contiguous().clone() for name, each in tensors.items()}
    save_file(plain, path)


def _usage(predictor: Predictor) -> str:
    base, revision = backbone_reference(predictor)
    at = f", revision={revision!r}" if revision else ""
    pair = ', ["and its pair"]' if predictor.task.pair else ""
    pair += ", return_token_type_ids=True" if pair and reads_types(predictor) else ""
    read = f'["a text"]{pair}, truncation=True, max_length={predictor.config.max_length}, padding=True'
    head, norms = _head(predictor), bool(_layernorms(predictor))
    loads = "from safetensors.torch import load_file\n" if head is None or norms else ""
    lines = f"""from adapters import AutoAdapterModel
{loads}from transformers import AutoTokenizer

base = {base!r}
tokenizer = AutoTokenizer.from_pretrained(base{at})
model = AutoAdapterModel.from_pretrained(base{at})
model.load_adapter("path/to/this/folder", set_active=True, use_safetensors=True)
"""
    if norms:
        lines += f'model.base_model.load_state_dict(load_file("path/to/this/folder/{LAYERNORMS}"), strict=False)\n'
    lines += f"""model.eval()
inputs = tokenizer({read}, return_tensors="pt")
outputs = model(**inputs)
"""
    if head is None:
        lines += f"""hidden = outputs.last_hidden_state
read = {READS[predictor.model.encoder.pooling]}
head = load_file("path/to/this/folder/{OWN_HEAD}")
logits = read @ head["weight"].T + head["bias"]
"""
    return lines


def _notes(predictor: Predictor) -> str:
    notes = ""
    if _head(predictor) is None:
        reads = READ[predictor.model.encoder.pooling]
        notes += f"The head reads {reads}. It is in `{OWN_HEAD}`, and the last lines apply it. "
    if _layernorms(predictor):
        rule = f"They are in `{LAYERNORMS}`, and the lines put them into the backbone, for all that is computed by it."
        notes += f"The backbone's LayerNorms were trained too, for which the library has no place. {rule} "
    return f"{notes.strip()}\n\n" if notes else ""


# What every configuration of the library has beside the fields above.
_BOTTLENECK: dict[str, Any] = {
    "adapter_residual_before_ln": False,
    "cross_adapter": False,
    "dropout": 0.0,
    "factorized_phm_W": True,
    "factorized_phm_rule": False,
    "hypercomplex_nonlinearity": "glorot-uniform",
    "init_weights": "bert",
    "init_weights_seed": None,
    "inv_adapter": None,
    "inv_adapter_reduction_factor": None,
    "learn_phm": True,
    "ln_after": False,
    "ln_before": False,
    "original_ln_after": True,
    "phm_bias": True,
    "phm_c_init": "normal",
    "phm_dim": 4,
    "phm_init_range": 0.0001,
    "phm_layer": False,
    "phm_rank": 1,
    "residual_before_ln": True,
    "shared_W_phm": False,
    "shared_phm_rule": True,
    "stochastic_depth": 0.0,
    "use_gating": False,
}
_LORA: dict[str, Any] = {
    "architecture": "lora",
    "composition_mode": "add",
    "dtype": None,
    "init_weights": "lora",
    "init_weights_seed": None,
    "leave_out": [],
    "use_dora": False,
    "use_gating": False,
    "vera_b": None,
    "vera_d": None,
}
