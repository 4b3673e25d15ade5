"""A folder of the library adapters with a bottleneck adapter or a LoRA and its head, read as a stranger's.

Only what the methods `adapter` and `lora` compute is taken; whatever else a folder asks for is refused. Beside the
library's own files there may be `layernorms.safetensors` and `head.safetensors`, for trained LayerNorms and for heads
that it has no place for, and `adaptune.json`, which says what the task is and what the head reads.

Suffixes: A adapter width, D hidden width, I and O the widths of a projection, R rank, C outputs.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

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
from trainables.inference.saved_names import (
    ADAPTER,
    CONFIG,
    HEAD,
    HEAD_CONFIG,
    LAYERNORMS,
    OWN_HEAD,
    OWN_NOTES,
)
from trainables.methods.lora import TARGETS
from trainables.nn.encoder_shape import EncoderShape
from trainables.nn.layers import ACTIVATIONS
from trainables.task import TaskInfo
from trainables.training.model import AdaptedModel, build_model

# model_type -> the library's class, of the families that adapters are alike in.
CLASSES = {
    "bert": "BertAdapterModel",
    "deberta-v2": "DebertaV2AdapterModel",
    "distilbert": "DistilBertAdapterModel",
    "electra": "ElectraAdapterModel",
    "roberta": "RobertaAdapterModel",
    "xlm-roberta": "XLMRobertaAdapterModel",
}
# Of which the class gives a head the pooler.
POOLED = ("bert", "roberta", "xlm-roberta")
# kind of task -> the library's name of its head
HEAD_TYPES = {
    "classification": "classification",
    "regression": "classification",
    "multilabel": "multilabel_classification",
    "extractive_qa": "question_answering",
}
# placement -> mh_adapter, output_adapter, original_ln_before, is_parallel
PLACEMENTS = {
    "houlsby": (True, True, False, False),
    "attention_only": (True, False, False, False),
    "feedforward_only": (False, True, False, False),
    "pfeiffer": (False, True, True, False),
    "parallel": (False, True, False, True),
}
_PLACED_BY = ("mh_adapter", "output_adapter", "original_ln_before", "is_parallel")
# Fields whose values tensors show, or that only training reads, or that say how something is done which is refused.
_SHOWN = {
    "architecture", "non_linearity", "reduction_factor", "scaling", "original_ln_after", "residual_before_ln",
    "init_weights", "init_weights_seed", "leave_out", "dropout", "inv_adapter_reduction_factor", "phm_dim",
    "factorized_phm_W", "shared_phm_rule", "phm_c_init", "phm_init_range", "learn_phm", "hypercomplex_nonlinearity",
    "phm_rank", "phm_bias", "selfattn_lora", "intermediate_lora", "output_lora", "r", "alpha", "attn_matrices",
    "composition_mode", "dtype", *_PLACED_BY,
}  # fmt: skip
# Our parameters of an adapter -> theirs
LEAVES = {
    "down_proj": "adapter_down.0.weight",
    "down_bias": "adapter_down.0.bias",
    "up_proj": "adapter_up.weight",
    "up_bias": "adapter_up.bias",
}
LORA_TARGETS = ("query", "key", "value", "up", "down")  # the library changes no output of attention
_PLACES = {"attention.qkv": ("query", "key", "value"), "intermediate": ("up",), "feedforward_output.dense": ("down",)}


@dataclass(frozen=True, kw_only=True)
class _Files:
    """What a folder's files say, checked as far as that goes without the backbone."""

    folder: Path
    settings: Mapping[str, Any]  # the adapter's own
    name: str
    backbone: str
    head: Mapping[str, Any]  # the head's own settings; empty where the folder has none of the library's
    head_name: str
    notes: Mapping[str, Any]
    shapes: Mapping[str, tuple[int, ...]]  # those of the side files with the file's name before them

    @property
    def is_lora(self) -> bool:
        return self.settings.get("architecture") == "lora"

    def has(self, file: str) -> bool:
        """Whether there are tensors in one of the files beside the library's."""
        return any(name.startswith(f"{file}/") for name in self.shapes)


def is_adapters_folder(folder: Path) -> bool:
    """Whether a folder says that it is one of the library adapters."""
    try:
        about = read_json(folder / CONFIG)
    except (OSError, ValueError, RecursionError):
        return False
    return "model_class" in about and "config" in about


def backbone_of_adapters_folder(folder: Path) -> str:
    """The backbone that a folder of adapters names. Raises `FaultsError` where it is faulty."""
    return _read(folder).backbone


def load_adapters_folder(folder: Path, *, device: str, precision: str, backbone: Backbone | None) -> Predictor:
    """A predictor from a folder of the library adapters; arguments as those of `load`.

    Raises `FaultsError` with what is wrong of the folder, or what it asks for that adaptune does not compute.
    """
    files = _read(folder)
    if backbone is None:
        place = device_named(device)
        backbone = load_backbone(files.backbone, device=place, compute_dtype=compute_dtype(precision, place))
    shape, fingerprint = backbone.info.shape, files.notes.get("backbone_fingerprint")
    try:
        if fingerprint not in (None, backbone.info.fingerprint):
            came = backbone.info.fingerprint
            raise ValueError(f"an adapter fits only the weights it was trained on, but they are {came}")
        if shape.model_type not in CLASSES:
            raise ValueError(f"the backbone must be one of {', '.join(CLASSES)}, but is a {shape.model_type}")
        names = _lora_names(files, shape) if files.is_lora else _adapter_names(files, shape)
        head = _head_names(files)
        task = _task(files, files.shapes[head["weight"]])
        options = _lora_options(files, names) if files.is_lora else _adapter_options(files, names, shape)
        if task.kind != "extractive_qa":
            options["pooling"] = _pooling(files, shape)
        config = TrialConfig(
            task=task.source,
            backbone=backbone.info.name or files.backbone,
            method="lora" if files.is_lora else "adapter",
            method_options=options,
            max_length=max_length_of(files.notes, shape),
        )
        model = build_model(backbone.encoder, [config], task.num_labels, kind=task.kind)
        _fill(model, files, names, head)
    except FaultsError as error:
        raise FaultsError(f"adapter {folder}", error.faults) from None
    except ValueError as error:
        raise FaultsError(f"adapter {folder}", [str(error)]) from None
    scores = {name: float(value) for name, value in files.notes.get("scores", {}).items()}
    return Predictor(task=task, config=config, scores=scores, model=model, backbone=backbone)


def end_names(shape: EncoderShape) -> dict[str, str]:
    """Our ends of sub-layers -> the library's modules that hold their adapters, without the model's prefix."""
    found = {}
    for layer in range(shape.num_layers):
        for end, block in (("attention_output", "attention_adapters"), ("feedforward_output", "output_adapters")):
            name = f"layers.{layer}.{end}"
            if shape.model_type == "distilbert":
                found[name] = f"transformer.layer.{layer}.{block}"
            else:
                found[name] = checkpoint_names(shape)[f"{name}.dense.weight"][0].removesuffix(".dense.weight")
    return found


def layernorm_names(shape: EncoderShape, model: AdaptedModel) -> dict[str, str]:
    """The trained LayerNorms' parameters of a view -> their names in the backbone."""
    names = checkpoint_names(shape)
    return {
        name: names[name][0]
        for norm in model.encoder.layernorm_names()
        for name, parameter in model.encoder.named_parameters()
        if name.rpartition(".")[0] == norm and parameter.requires_grad
    }


def turned(tensor: Tensor) -> Tensor:
    """A matrix as the library has it, outputs by inputs; a vector as it is."""
    return tensor.T if tensor.dim() == 2 else tensor


def _read(folder: Path) -> _Files:
    """The files of a folder. Raises `FaultsError` with every fault that they have for themselves."""

    def fault(*faults: str) -> FaultsError:
        return FaultsError(f"adapter {folder}", faults)

    if not (folder / ADAPTER).exists() and (folder / "pytorch_adapter.bin").exists():
        rule = "must hold its weights as safetensors, since a pickle can run code; save it there with"
        raise fault(f"{rule} save_adapter(..., use_safetensors=True)")
    try:
        about, shapes = read_json(folder / CONFIG), read_shapes(folder / ADAPTER)
        notes = read_json(folder / OWN_NOTES) if (folder / OWN_NOTES).exists() else {}
        of_head = read_json(folder / HEAD_CONFIG) if (folder / HEAD_CONFIG).exists() else {}
        if of_head:
            shapes |= read_shapes(folder / HEAD)
        for file in (LAYERNORMS, OWN_HEAD):
            if (folder / file).exists():
                shapes |= {f"{file}/{name}": shape for name, shape in read_shapes(folder / file).items()}
    except (OSError, ValueError, RecursionError) as error:
        raise fault(f"must hold {CONFIG} and {ADAPTER}, but {error}") from None
    faults = _named_faults(CONFIG, about, {"config": dict, "model_name": str, "name": str})
    if of_head:
        faults += _named_faults(HEAD_CONFIG, of_head, {"config": dict, "name": str})
    if faults or (faults := [*_settings_faults(about), *_head_faults(of_head), *notes_faults(notes)]):
        raise fault(*faults)
    return _Files(
        folder=folder,
        settings=_as_computed(about),
        name=about["name"],
        backbone=about["model_name"],
        head=of_head.get("config", {}),
        head_name=of_head.get("name", ""),
        notes=notes,
        shapes=shapes,
    )


def _named_faults(file: str, about: Mapping[str, Any], kinds: Mapping[str, type]) -> list[str]:
    """What must be there and is not, or is of another kind."""
    rules: dict[type, str] = {dict: "a mapping", str: "a text"}
    return [
        f"{file}: {name} must be {rules[kind]}, but got {shown(about.get(name))}"
        for name, kind in kinds.items()
        if not isinstance(about.get(name), kind) or not about[name]
    ]


def _as_computed(about: Mapping[str, Any]) -> dict[str, Any]:
    """The settings as today's library reads them: before 1.1.0 it left the scale of a LoRA out."""
    settings = dict(about["config"])
    version = re.fullmatch(r"adapters\.(\d+)\.(\d+).*", str(about.get("version", "")))
    if settings.get("architecture") == "lora" and (version is None or (int(version[1]), int(version[2])) < (1, 1)):
        settings["alpha"] = settings.get("r", 8)
    return settings


def _settings_faults(about: Mapping[str, Any]) -> list[str]:
    settings = about["config"]
    kind = settings.get("architecture")
    if kind not in (None, "lora"):
        return [f"{CONFIG}: architecture must be null, a bottleneck, or lora, but got {shown(kind)}"]
    asked = sorted(name for name, value in settings.items() if value and name not in _SHOWN)
    faults = [f"{CONFIG}: {name[:80]} is nothing that adaptune computes" for name in asked[:5]]
    numbers = ("alpha",) if kind == "lora" else ("scaling",)
    for name in numbers:
        value = settings.get(name, 8 if name == "alpha" else 1.0)
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < abs(value) <= 1e6:
            faults.append(f"{CONFIG}: {name} must be a number other than 0, but got {shown(value)}")
    if kind == "lora":
        if settings.get("composition_mode", "add") != "add":
            faults.append(f"{CONFIG}: composition_mode must be add, but got {shown(settings['composition_mode'])}")
        return faults
    if _placement(settings) is None:
        came = ", ".join(f"{name} {shown(settings.get(name, False))}" for name in _PLACED_BY)
        faults.append(f"{CONFIG}: must be placed as one of {', '.join(PLACEMENTS)}, but has {came}")
    if not settings.get("original_ln_after", True):
        faults.append(f"{CONFIG}: original_ln_after must be true, but got {shown(settings['original_ln_after'])}")
    if settings.get("original_ln_before") and settings.get("residual_before_ln", True) is not True:
        faults.append(f"{CONFIG}: residual_before_ln must be true, but got {shown(settings['residual_before_ln'])}")
    if str(settings.get("non_linearity")).lower() not in ACTIVATIONS:
        rule = f"must be one of {', '.join(ACTIVATIONS)}"
        faults.append(f"{CONFIG}: non_linearity {rule}, but got {shown(settings.get('non_linearity'))}")
    return faults


def _placement(settings: Mapping[str, Any]) -> str | None:
    placed = tuple(bool(settings.get(name, False)) for name in _PLACED_BY)
    return next((name for name, known in PLACEMENTS.items() if known == placed), None)


def _head_faults(about: Mapping[str, Any]) -> list[str]:
    settings = about.get("config", {})
    if not settings:
        return []
    faults = []
    if settings.get("head_type") not in HEAD_TYPES.values():
        rule = f"must be one of {', '.join(sorted(set(HEAD_TYPES.values())))}"
        faults.append(f"{HEAD_CONFIG}: head_type {rule}, but got {shown(settings.get('head_type'))}")
    if settings.get("layers") != 1:
        faults.append(f"{HEAD_CONFIG}: layers must be 1, a linear head, but got {shown(settings.get('layers'))}")
    if settings.get("bias", True) is not True:
        faults.append(f"{HEAD_CONFIG}: bias must be true, but got {shown(settings['bias'])}")
    return faults


def _adapter_names(files: _Files, shape: EncoderShape) -> dict[str, str]:
    """The library's names of the adapters' tensors -> our parameters."""
    prefix, known = prefix_of(shape), {}
    for ours, theirs in end_names(shape).items():
        for leaf, place in LEAVES.items():
            known[f"{prefix}{theirs}.adapters.{files.name}.{place}"] = f"{ours}.adapter.{leaf}"
    return _known_of(files, known)


def _lora_names(files: _Files, shape: EncoderShape) -> dict[str, str]:
    """The library's names of the changes' tensors -> our parameters."""
    prefix, known = prefix_of(shape), {}
    for name, sources in checkpoint_names(shape).items():
        place = re.fullmatch(r"layers\.\d+\.(.+)\.weight", name)
        if place is not None and len(sources) == len(_PLACES.get(place[1], ())):
            for part, source in enumerate(sources):
                for leaf in ("lora_A", "lora_B"):
                    theirs = f"{prefix}{source.removesuffix('.weight')}.loras.{files.name}.{leaf}"
                    known[theirs] = f"{name.removesuffix('.weight')}.changes.{part}.{leaf.lower()}"
    return _known_of(files, known)


def _known_of(files: _Files, known: Mapping[str, str]) -> dict[str, str]:
    """Of these names those that the adapter's file has; others there, but those of a head, are refused later."""
    found = {theirs: ours for theirs, ours in known.items() if theirs in files.shapes}
    if not found:
        raise ValueError(f"{ADAPTER} must hold tensors such as {next(iter(known))}, but has none of them")
    return found


def _head_names(files: _Files) -> dict[str, str]:
    """The names of the head's `weight` and `bias`. Raises `ValueError` where there is no linear head."""
    place = f"heads.{files.head_name}.1." if files.head else f"{OWN_HEAD}/"
    names = {leaf: f"{place}{leaf}" for leaf in ("weight", "bias")}
    if not all(name in files.shapes for name in names.values()):
        file = HEAD if files.head else OWN_HEAD
        raise ValueError(f"must have a linear head, as {file} with its weight and bias, but has none")
    if len(files.shapes[names["weight"]]) != 2 or not files.shapes[names["weight"]][0]:
        raise ValueError(f"the head's weight must be outputs by width, but is {files.shapes[names['weight']]}")
    return names


def _pooling(files: _Files, shape: EncoderShape) -> str:
    """What the head reads. Raises `ValueError` where nothing says so, or the backbone has no such thing."""
    pooling = files.notes.get("pooling")
    if files.head:
        pooling = "pooler" if files.head.get("use_pooler") else "first"
    if pooling is None:
        raise ValueError(f"{OWN_NOTES} must say what the head in {OWN_HEAD} reads, as pooling")
    if pooling == "pooler" and not (shape.has_pooler and shape.model_type in POOLED):
        raise ValueError(f"its head reads a pooler, which a {shape.model_type} does not have here")
    return str(pooling)


def _task(files: _Files, size: tuple[int, ...]) -> TaskInfo:
    """The task: as the notes have it, or as the head says. `size` is its weight's, (C, D)."""
    if "task" in files.notes:
        task = task_of(files.notes["task"], [])
        assert task is not None  # it was checked
        if task.num_labels != size[0]:
            raise ValueError(f"the head must have the task's {task.num_labels} outputs, but has {size[0]}")
        if files.head and HEAD_TYPES[task.kind] != files.head["head_type"]:
            raise ValueError(f"the head must be one of a {task.kind}, but is one of {files.head['head_type']}")
        return task
    kind = files.head.get("head_type")
    if kind == "question_answering":
        values: dict[str, Any] = {"kind": "extractive_qa", "metric": "squad_f1", "pair": True}
    elif kind == "multilabel_classification":
        values = {"kind": "multilabel", "metric": "micro_f1", "pair": False}
    elif size[0] == 1:
        values = {"kind": "regression", "metric": "pearson", "pair": False}
    else:
        values = {"kind": "classification", "metric": "accuracy", "pair": False}
    names = _label_names(files.head.get("label2id"), size[0]) if kind != "question_answering" else ()
    return TaskInfo(name=files.folder.name, num_labels=size[0], label_names=names, source=str(files.folder), **values)


def _label_names(numbers: Any, count: int) -> tuple[str, ...]:
    """The labels in their order; none where they are not one for each output."""
    if not isinstance(numbers, dict) or count < 2:
        return ()
    names = {number: name for name, number in numbers.items() if type(number) is int}
    return tuple(names[number] for number in range(count)) if set(names) == set(range(count)) else ()


def _adapter_options(files: _Files, names: Mapping[str, str], shape: EncoderShape) -> dict[str, Scalar]:
    """The options of the method `adapter`. Raises `ValueError` where the adapters are not alike."""
    placement = _placement(files.settings)
    assert placement is not None  # it was checked
    after_attention, after_feedforward = PLACEMENTS[placement][:2]
    ends = {name.rpartition(".adapter.")[0] for name in names.values()}
    layers = sorted({int(end.split(".")[1]) for end in ends})
    kinds = ["attention_output"] * after_attention + ["feedforward_output"] * after_feedforward
    if ends != {f"layers.{layer}.{kind}" for layer in layers for kind in kinds} or len(names) != len(ends) * len(
        LEAVES
    ):
        raise ValueError(f"{ADAPTER} must hold whole adapters as {CONFIG} places them, but does not")
    sizes = {files.shapes[theirs][:1] for theirs, ours in names.items() if ours.endswith("down_proj")}
    if len(sizes) != 1 or sizes == {()}:
        raise ValueError(f"its adapters must have one size, but have {', '.join(map(str, sorted(sizes)[:5]))}")
    ((size,),) = sizes
    scaling = float(files.settings.get("scaling", 1.0))
    is_whole = len(layers) == shape.num_layers
    return {
        "adapter_size": size,
        "placement": placement,
        "activation": str(files.settings["non_linearity"]).lower(),
        "scaling": None if scaling == (4.0 if placement == "parallel" else 1.0) else scaling,
        "layers": "all" if is_whole else ",".join(map(str, layers)),
        "train_layernorms": files.has(LAYERNORMS),
    }


def _lora_options(files: _Files, names: Mapping[str, str]) -> dict[str, Scalar]:
    """The options of the method `lora`. Raises `ValueError` where the changes are not alike."""
    ranks = {files.shapes[theirs][:1] for theirs, ours in names.items() if ours.endswith("lora_a")}
    if len(ranks) != 1 or ranks == {()}:
        raise ValueError(f"its changes must have one rank, but have {', '.join(map(str, sorted(ranks)[:5]))}")
    ((rank,),) = ranks
    places = {re.fullmatch(r"layers\.\d+\.(.+)\.changes\.(\d)\.lora_.", ours) for ours in names.values()}
    targets = {_PLACES[place[1]][int(place[2])] for place in places if place is not None}
    settings_rank = files.settings.get("r", 8)
    if settings_rank != rank:
        raise ValueError(f"{CONFIG}: r must be the changes' rank {rank}, but got {shown(settings_rank)}")
    return {
        "rank": rank,
        "alpha": float(files.settings.get("alpha", 8)),
        "targets": ",".join(name for name in TARGETS if name in targets),
    }


def _fill(model: AdaptedModel, files: _Files, names: Mapping[str, str], head: Mapping[str, str]) -> None:
    """Give a model the folder's tensors. Raises `ValueError` where they are others, of other sizes, or not finite."""
    parameters = dict(model.encoder.named_parameters())
    own: dict[str, Tensor] = {head["weight"]: model.head.weight.data[0].T, head["bias"]: model.head.bias.data[0]}
    norms = layernorm_names(model.encoder.shape, model)
    places = {**names, **{f"{LAYERNORMS}/{theirs}": ours for ours, theirs in norms.items()}}
    own |= {theirs: turned(parameters[ours].data[0]) for theirs, ours in places.items()}
    trained = {name for name, parameter in parameters.items() if parameter.requires_grad}
    if odd := [*sorted(trained - set(places.values())), *sorted(own.keys() ^ files.shapes.keys())]:
        came = shown(odd[0])
        raise ValueError(f"must hold the tensors of an adapter and its linear head alone, but differs in {came}")
    sides = {LAYERNORMS: f"{LAYERNORMS}/", OWN_HEAD: f"{OWN_HEAD}/"}
    tensors = sound_tensors(files.folder, {ADAPTER: "", HEAD: "", **sides}, files.shapes, own)
    for name, tensor in own.items():
        tensor.copy_(tensors[name])
