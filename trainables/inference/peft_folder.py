"""A folder of huggingface/peft with a LoRA and its head, read as what a stranger may have written.

Only what the method `lora` computes is taken: the same projections in every layer, of one rank, over weights that stay
as they are. Whatever else a folder asks for is refused. `adaptune.json` beside peft's files, where there is one, says
what the task is, what the head reads and how texts are cut; a folder without it is one of single texts.

Suffixes: I and O the widths of a projection, R rank, C outputs, D hidden width.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from trainables.backbones import checkpoint_names, prefix_of
from trainables.backbones.loading import Backbone, load_backbone
from trainables.config import Scalar, TrialConfig
from trainables.device.dtype import compute_dtype
from trainables.device.hardware import device_named
from trainables.faults import FaultsError
from trainables.inference.foreign_folder import max_length_of, notes_faults, sound_tensors
from trainables.inference.predictor import Predictor
from trainables.inference.saved_files import read_json, read_shapes, shown, task_of
from trainables.inference.saved_names import CONFIG, OWN_HEAD, OWN_NOTES, WEIGHTS
from trainables.inference.stock_model import DENSE_IN_HEAD, POOLED
from trainables.methods.lora import TARGETS, Changed
from trainables.nn.encoder_shape import EncoderShape
from trainables.task import TaskInfo
from trainables.training.model import AdaptedModel, build_model

# Before every name in a folder of peft.
PREFIX = "base_model.model."
# Fields of a LoRA's configuration that its tensors show, or that only training reads.
_SHOWN = {
    "auto_mapping", "base_model_name_or_path", "bias", "ensure_weight_tying", "exclude_modules", "fan_in_fan_out",
    "inference_mode", "init_lora_weights", "layers_pattern", "layers_to_transform", "lora_alpha", "lora_dropout",
    "megatron_core", "modules_to_save", "peft_type", "peft_version", "qalora_group_size", "r", "revision",
    "runtime_config", "target_modules", "task_type", "use_rslora",
}  # fmt: skip
# Initial values that leave the backbone as it is; others take something out of it.
_INITIAL = (True, False, None, "gaussian", "orthogonal")
# Our module in a layer -> its targets.
_PLACES = {
    "attention.qkv": ("query", "key", "value"),
    "attention_output.dense": ("output",),
    "intermediate": ("up",),
    "feedforward_output.dense": ("down",),
}


def is_peft_folder(folder: Path) -> bool:
    """Whether a folder says that it is one of peft."""
    try:
        return "peft_type" in read_json(folder / CONFIG)
    except (OSError, ValueError, RecursionError):
        return False


def backbone_of_peft_folder(folder: Path) -> str:
    """The backbone that a folder of peft names. Raises `FaultsError` where its configuration is faulty."""
    about = read_json(folder / CONFIG)
    if faults := _config_faults(about):
        raise FaultsError(f"adapter {folder}", faults)
    return _backbone_of(about)


def load_peft_folder(folder: Path, *, device: str, precision: str, backbone: Backbone | None) -> Predictor:
    """A predictor from a folder of peft; arguments as those of `load`.

    Raises `FaultsError` with what is wrong of the folder, or what it asks for that the method `lora` does not compute.
    """

    def fault(*faults: str) -> FaultsError:
        return FaultsError(f"adapter {folder}", faults)

    try:
        about, shapes = read_json(folder / CONFIG), read_shapes(folder / WEIGHTS)
        notes = read_json(folder / OWN_NOTES) if (folder / OWN_NOTES).exists() else {}
        if (folder / OWN_HEAD).exists():
            shapes |= {f"{OWN_HEAD}/{name}": shape for name, shape in read_shapes(folder / OWN_HEAD).items()}
    except (OSError, ValueError, RecursionError) as error:
        raise fault(f"must hold {CONFIG} and {WEIGHTS}, but {error}") from None
    if faults := [*_config_faults(about), *notes_faults(notes)]:
        raise fault(*faults)
    reference = _backbone_of(about)
    if backbone is None:
        place = device_named(device)
        backbone = load_backbone(reference, device=place, compute_dtype=compute_dtype(precision, place))
    shape, fingerprint = backbone.info.shape, notes.get("backbone_fingerprint")
    if fingerprint not in (None, backbone.info.fingerprint):
        raise fault(f"an adapter fits only the weights it was trained on, but they are {backbone.info.fingerprint}")
    try:
        changes = _changes(shapes, shape)
        head = _head(shapes, shape.model_type)
        task = _task(notes, head, shapes[head["weight"]], folder)
        config = _trial_config(about, notes, changes, shapes, task, backbone.info.name or reference, shape)
        model = build_model(backbone.encoder, [config], task.num_labels, kind=task.kind)
        _fill(model, folder, changes, head, shapes)
    except FaultsError as error:
        raise fault(*error.faults) from None
    except ValueError as error:
        raise fault(str(error)) from None
    scores = {name: float(value) for name, value in notes.get("scores", {}).items()}
    return Predictor(task=task, config=config, scores=scores, model=model, backbone=backbone)


def _backbone_of(about: Mapping[str, Any]) -> str:
    return about["base_model_name_or_path"] + (f"@{about['revision']}" if about.get("revision") else "")


def _config_faults(about: Mapping[str, Any]) -> list[str]:
    if about["peft_type"] != "LORA":
        return [f"{CONFIG}: peft_type must be LORA, which `lora` computes, but got {shown(about['peft_type'])}"]
    faults = []
    if not isinstance(about.get("base_model_name_or_path"), str) or not about["base_model_name_or_path"]:
        came = shown(about.get("base_model_name_or_path"))
        faults.append(f"{CONFIG}: base_model_name_or_path must name the backbone, but got {came}")
    if not isinstance(about.get("revision"), str | None):
        faults.append(f"{CONFIG}: revision must be a text or null, but got {shown(about['revision'])}")
    alpha = about.get("lora_alpha")
    if isinstance(alpha, bool) or not isinstance(alpha, int | float) or not 0 < alpha <= 1e6:
        faults.append(f"{CONFIG}: lora_alpha must be a number above 0, but got {shown(alpha)}")
    if about.get("bias", "none") != "none":
        faults.append(f"{CONFIG}: bias must be none, but got {shown(about['bias'])}")
    if not any(
        about.get("init_lora_weights", True) is value or about.get("init_lora_weights") == value for value in _INITIAL
    ):
        rule = "must leave the backbone's weights as they are"
        faults.append(f"{CONFIG}: init_lora_weights {rule}, but got {shown(about['init_lora_weights'])}")
    asked = sorted(name for name, value in about.items() if value and name not in _SHOWN)
    return faults + [f"{CONFIG}: {name[:80]} is nothing that `lora` computes" for name in asked[:5]]


def _changes(shapes: Mapping[str, tuple[int, ...]], shape: EncoderShape) -> dict[str, tuple[str, int]]:
    """Peft's names of changed projections, without `.lora_A.weight`, -> our module and the part of it.

    Raises `ValueError` where one is not a projection of this backbone.
    """
    known: dict[str, tuple[str, int]] = {}
    for name, sources in checkpoint_names(shape).items():
        place = re.fullmatch(r"layers\.\d+\.(.+)\.weight", name)
        if place is not None and len(sources) == len(_PLACES.get(place[1], ())):
            module = name.removesuffix(".weight")
            known |= {source.removesuffix(".weight"): (module, part) for part, source in enumerate(sources)}
    found = {}
    for name in shapes:
        if name.endswith(".lora_A.weight"):
            full = name.removesuffix(".lora_A.weight")
            plain = full.removeprefix(PREFIX).removeprefix(prefix_of(shape))
            if plain not in known:
                raise ValueError(f"{WEIGHTS} must change projections of a {shape.model_type}, but has {name[:120]}")
            found[full] = known[plain]
    if not found:
        raise ValueError(f"{WEIGHTS} must hold changes of projections, named like {PREFIX}MODULE.lora_A.weight")
    return found


def _head(shapes: Mapping[str, tuple[int, ...]], model_type: str) -> dict[str, str]:
    """The names of the head's `weight` and `bias`. Raises `ValueError` where there is no linear head."""
    places = [f"{OWN_HEAD}/", f"{PREFIX}qa_outputs."]
    places += [f"{PREFIX}classifier."] if model_type in POOLED else []
    places += [f"{PREFIX}classifier.out_proj."] if model_type in DENSE_IN_HEAD else []
    for place in places:
        names = {leaf: f"{place}{leaf}" for leaf in ("weight", "bias")}
        if all(name in shapes for name in names.values()):
            return names
    raise ValueError(
        f"must have a linear head of a {model_type}, named {' or '.join(places)}weight and bias, but has none"
    )


def _task(notes: Mapping[str, Any], head: Mapping[str, str], size: tuple[int, ...], folder: Path) -> TaskInfo:
    """The task: as the notes have it, or as the head's name and size say. `size` is the weight's, (C, D)."""
    if len(size) != 2 or not size[0]:
        raise ValueError(f"the head's weight must be outputs by width, but is {size}")
    if "task" in notes:
        task = task_of(notes["task"], [])
        assert task is not None  # it was checked
        if task.num_labels != size[0]:
            raise ValueError(f"the head must have the task's {task.num_labels} outputs, but has {size[0]}")
        return task
    if head["weight"].startswith(f"{PREFIX}qa_outputs"):
        values: dict[str, Any] = {"kind": "extractive_qa", "metric": "squad_f1", "pair": True}
    elif size[0] == 1:
        values = {"kind": "regression", "metric": "pearson", "pair": False}
    else:
        values = {"kind": "classification", "metric": "accuracy", "pair": False}
    return TaskInfo(name=folder.name, num_labels=size[0], label_names=(), source=str(folder), **values)


def _trial_config(
    about: Mapping[str, Any],
    notes: Mapping[str, Any],
    changes: Mapping[str, tuple[str, int]],
    shapes: Mapping[str, tuple[int, ...]],
    task: TaskInfo,
    backbone: str,
    shape: EncoderShape,
) -> TrialConfig:
    """The configuration of a `lora` with these changes. Raises `ValueError` where there is none, or `FaultsError`."""
    ranks = {shapes[f"{name}.lora_A.weight"][0] for name in changes}
    if len(ranks) != 1:
        raise ValueError(f"its changes must have one rank, but have {', '.join(map(str, sorted(ranks)[:5]))}")
    (rank,) = ranks
    targets = {_PLACES[module.split(".", 2)[2]][part] for module, part in changes.values()}
    if len(changes) != len(targets) * shape.num_layers:
        raise ValueError(f"it must change the same projections in all {shape.num_layers} layers, but does not")
    has_own_head = any(name.startswith(f"{OWN_HEAD}/") for name in shapes)
    pooling = notes.get("pooling", None if has_own_head else "pooler")
    if pooling is None:
        raise ValueError(f"{OWN_NOTES} must say what the head in {OWN_HEAD} reads, as pooling")
    if not has_own_head and pooling == "pooler" and not shape.has_pooler:
        raise ValueError("its head reads a pooler, which the backbone does not have")
    alpha = float(about["lora_alpha"]) * (math.sqrt(rank) if about.get("use_rslora") else 1.0)
    options: dict[str, Scalar] = {
        "rank": rank,
        "alpha": alpha,
        "targets": ",".join(name for name in TARGETS if name in targets),
    }
    if task.kind != "extractive_qa":
        options["pooling"] = pooling
    return TrialConfig(
        task=task.source,
        backbone=backbone,
        method="lora",
        method_options=options,
        max_length=max_length_of(notes, shape),
    )


def _fill(
    model: AdaptedModel,
    folder: Path,
    changes: Mapping[str, tuple[str, int]],
    head: Mapping[str, str],
    shapes: Mapping[str, tuple[int, ...]],
) -> None:
    """Give a model the folder's tensors. Raises `ValueError` where they are others, of other sizes, or not finite."""
    own: dict[str, Tensor] = {head["weight"]: model.head.weight.data[0].T, head["bias"]: model.head.bias.data[0]}
    for name, (module, part) in changes.items():
        changed = model.encoder.get_submodule(module)
        assert isinstance(changed, Changed)  # by the options, which are of these changes
        low: Any = changed.changes[str(part)]
        own[f"{name}.lora_A.weight"], own[f"{name}.lora_B.weight"] = low.lora_a.data[0].T, low.lora_b.data[0].T
    pooler = {f"{PREFIX}classifier.dense.{leaf}": f"pooler.{leaf}" for leaf in ("weight", "bias")}
    if (
        model.encoder.pooler is not None
        and model.encoder.shape.model_type in DENSE_IN_HEAD
        and pooler.keys() <= shapes.keys()
    ):
        own |= {name: model.encoder.masters[ours] for name, ours in pooler.items()}
    if odd := sorted(own.keys() ^ shapes.keys()):
        raise ValueError(f"must hold the tensors of a LoRA and its linear head alone, but differs in {shown(odd[0])}")
    tensors = sound_tensors(folder, {WEIGHTS: "", OWN_HEAD: f"{OWN_HEAD}/"}, shapes, own)
    for name, tensor in own.items():
        if name not in pooler:
            tensor.copy_(tensors[name])
        elif not torch.equal(tensors[name].float(), tensor):
            raise ValueError(f"{name} must be the backbone's pooler, which a `lora` does not train, but is another")
