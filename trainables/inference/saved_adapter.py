"""Trained adapters on disk: private weights only, as safetensors, with what is needed to use them again.

A folder holds `adapter_config.json` (configuration, task, backbone), `adapter_model.safetensors` (the tensors that are
the trial's own: about a megabyte for an adapter), `README.md` (a model card with the scores), and in `references/` the
files that options of the method name. No pickle is read or written, and nothing outside the folder but the backbone.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from safetensors.torch import save as safetensors_bytes

from trainables.backbones.loading import Backbone, load_backbone, stand_in
from trainables.config import TrialConfig
from trainables.data.paths import given_path
from trainables.device.dtype import compute_dtype
from trainables.device.hardware import device_named
from trainables.faults import FaultsError
from trainables.inference.adapters_folder import (
    backbone_of_adapters_folder,
    is_adapters_folder,
    load_adapters_folder,
)
from trainables.inference.peft_folder import backbone_of_peft_folder, is_peft_folder, load_peft_folder
from trainables.inference.predictor import Predictor
from trainables.inference.saved_files import SavedFolder, read_folder
from trainables.inference.saved_names import (
    CARD,
    CONFIG,
    FORMAT_VERSION,
    REFERENCES,
    WEIGHTS,
    drop_references,
    write_file,
)
from trainables.methods import AUTO, option_names, references_of, unused_hyperparameters, uses_backbone
from trainables.nn.encoder import POOLINGS
from trainables.task import TaskInfo
from trainables.training.model import AdaptedModel, build_model, frozen_buffers

# Files that options name travel with a trial's weights where together they have at most so many bytes.
MOST_REFERENCES = 64 * 2**20


@dataclass(frozen=True, kw_only=True)
class HeldFiles:
    """The files of a saved adapter in memory, by their path in its folder, the configuration last."""

    files: Mapping[str, bytes]

    def __call__(self) -> Mapping[str, bytes]:
        return self.files


def save(
    folder: Path,
    model: AdaptedModel,
    config: TrialConfig,
    task: TaskInfo,
    *,
    backbone_fingerprint: str,
    scores: Mapping[str, float],
) -> None:
    """Write a trained model's private weights, its configuration and its card; a folder that is there is completed."""
    files = _files(model, config, task, backbone_fingerprint, scores, started_at=None)
    folder.mkdir(parents=True, exist_ok=True)
    references = references_of(config.method, config.method_options)
    for name, content in files.items():
        if name == CONFIG:
            _keep_references(folder, references)
        write_file(folder / name, content)


def saved_files(
    model: AdaptedModel,
    config: TrialConfig,
    task: TaskInfo,
    *,
    backbone_fingerprint: str,
    scores: Mapping[str, float],
    started_at: str,
) -> HeldFiles | None:
    """What `save` writes, in memory, with when the training started; None where files it refers to are too large."""
    references = _referred_files(references_of(config.method, config.method_options))
    if sum(path.stat().st_size for path in references.values()) > MOST_REFERENCES:
        return None
    files = {name: path.read_bytes() for name, path in references.items()}
    return HeldFiles(files=files | _files(model, config, task, backbone_fingerprint, scores, started_at=started_at))


def _files(
    model: AdaptedModel,
    config: TrialConfig,
    task: TaskInfo,
    backbone_fingerprint: str,
    scores: Mapping[str, float],
    *,
    started_at: str | None,
) -> dict[str, bytes]:
    """Weights, card and configuration by the names of their files, in the order they are to be written."""
    weights = safetensors_bytes({name: _without_trial_axis(tensor) for name, tensor in own_tensors(model).items()})
    about = {
        "format_version": FORMAT_VERSION,
        "library": "adaptune",
        "backbone": config.backbone,
        "backbone_fingerprint": backbone_fingerprint,
        "trial_config": _with_what_is_read(config, model).to_dict(),
        "task": asdict(task),
        "scores": dict(scores),
        "trained_params": sum(p.numel() for p in model.parameters() if p.requires_grad),
        "weights_sha256": hashlib.sha256(weights).hexdigest(),
        **({} if started_at is None else {"started_at": started_at}),
    }
    return {WEIGHTS: weights, CARD: _card(about).encode(), CONFIG: (json.dumps(about, indent=2) + "\n").encode()}


def load(
    path: str | Path, *, device: str = "cpu", precision: str = "fp32", backbone: Backbone | None = None
) -> Predictor:
    """A predictor from a saved folder, or from one of peft or of the library adapters that has an equal here.

    Args:
        path: the folder.
        device: "cpu", "cuda", "cuda:1".
        precision: of products, "fp32", "bf16", or "auto": bf16 where the device computes in it.
        backbone: one that is loaded already, in place of device and precision; by default the one that the adapter
            was trained on is found by its name.

    Raises `FaultsError` with every fault of the folder, and where the backbone is not the one the adapter was trained
    on. What a folder holds is not trusted: sizes are checked before memory is taken, no path leads out of it, and
    weights must be finite.
    """
    folder = given_path("adapter", "path", path)
    if is_peft_folder(folder):
        return load_peft_folder(folder, device=device, precision=precision, backbone=backbone)
    if is_adapters_folder(folder):
        return load_adapters_folder(folder, device=device, precision=precision, backbone=backbone)
    saved = read_folder(folder)
    config, reads_backbone = saved.config, uses_backbone(saved.config.method)
    if saved.format_version == 1:
        config = _as_it_was_read(config)
    if not reads_backbone:
        backbone = stand_in(device_named(device))
    elif backbone is None:
        place = device_named(device)
        backbone = load_backbone(config.backbone, device=place, compute_dtype=compute_dtype(precision, place))
    if reads_backbone and backbone.info.fingerprint != saved.backbone_fingerprint:
        rule = "an adapter fits only the weights it was trained on"
        name = backbone.info.name or config.backbone
        raise saved.fault(f"{rule}, but {name} is {backbone.info.fingerprint}, not {saved.backbone_fingerprint}")
    if reads_backbone and config.max_length > (most := backbone.info.shape.max_length):
        raise saved.fault(f"max_length: must be at most {most}, the backbone's positions, but got {config.max_length}")
    try:
        model = build_model(backbone.encoder, [config], saved.task.num_labels, kind=saved.task.kind)
    except FaultsError as error:
        raise saved.fault(*error.faults) from None
    _fill(model, saved)
    return Predictor(task=saved.task, config=config, scores=saved.scores, model=model, backbone=backbone)


def backbone_of(path: str | Path) -> str:
    """The backbone that a folder which `load` opens was trained on. Raises `FaultsError` as `load` does."""
    folder = given_path("adapter", "path", path)
    if is_adapters_folder(folder):
        return backbone_of_adapters_folder(folder)
    return backbone_of_peft_folder(folder) if is_peft_folder(folder) else read_folder(folder).config.backbone


def _fill(model: AdaptedModel, saved: SavedFolder) -> None:
    """Give a model the weights of a folder. Raises `FaultsError` where they are not the method's, or not numbers."""
    own = own_tensors(model)
    if faults := saved.tensor_faults({name: tuple(tensor.shape) for name, tensor in own.items()}):
        raise saved.fault(*faults)
    tensors = read_tensors(saved)
    with torch.no_grad():
        for name, tensor in own.items():
            tensor.copy_(tensors[name].view_as(tensor))


def read_tensors(saved: SavedFolder) -> dict[str, torch.Tensor]:
    """The weights of a folder by name. Raises `FaultsError` where they cannot be read or are not finite."""
    try:
        tensors = load_file(saved.folder / WEIGHTS)
    except (OSError, ValueError, SafetensorError) as error:
        raise saved.fault(f"{WEIGHTS} must be readable as safetensors, but {error}") from None
    if odd := sorted(name for name, tensor in tensors.items() if not bool(torch.isfinite(tensor).all())):
        raise saved.fault(f"{WEIGHTS} must hold finite numbers, but does not in {', '.join(odd[:5])}")
    return tensors


def own_tensors(model: AdaptedModel) -> dict[str, torch.Tensor]:
    """What of a model is not the backbone's: what is trained, and buffers, which a backbone does not have."""
    trained = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    return trained | frozen_buffers(model)


def _keep_references(folder: Path, references: Mapping[str, Sequence[Path]]) -> None:
    """Copy the files and folders that options name, in place of those of an earlier save."""
    fresh = folder / f".{REFERENCES}.tmp"
    shutil.rmtree(fresh, ignore_errors=True)
    for option, paths in references.items():
        for place, path in enumerate(paths):
            copy = fresh / option / f"{place}-{path.name}"
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copytree(path, copy) if path.is_dir() else shutil.copy2(path, copy)
    drop_references(folder)
    if fresh.exists():
        os.replace(fresh, folder / REFERENCES)


def _referred_files(references: Mapping[str, Sequence[Path]]) -> dict[str, Path]:
    """The same files by the paths that their copies have in the folder of a saved adapter."""
    found: dict[str, Path] = {}
    for option, paths in references.items():
        for place, path in enumerate(paths):
            copy = f"{REFERENCES}/{option}/{place}-{path.name}"
            within = sorted(each for each in path.rglob("*") if each.is_file()) if path.is_dir() else [path]
            found |= {copy if each is path else f"{copy}/{each.relative_to(path).as_posix()}": each for each in within}
    return found


def _with_what_is_read(config: TrialConfig, model: AdaptedModel) -> TrialConfig:
    """A configuration that says what its head reads, since what "auto" means is not part of the weights."""
    if config.method_options.get("pooling", AUTO) != AUTO or model.encoder.pooling not in POOLINGS:
        return config
    if "pooling" not in option_names(config.method):
        return config
    return dataclasses.replace(config, method_options={**config.method_options, "pooling": model.encoder.pooling})


def _as_it_was_read(config: TrialConfig) -> TrialConfig:
    """A configuration of format 1 with what its head read, which was not always said: the pooler, or the mean."""
    if "pooling" not in option_names(config.method):
        return config
    read = {"pooling": "mean" if config.method == "feature_based" else "pooler"}
    return dataclasses.replace(config, method_options={**read, **config.method_options})


def _without_trial_axis(parameter: torch.Tensor) -> torch.Tensor:
    tensor = parameter.detach().cpu()
    return (tensor[0] if tensor.shape[0] == 1 else tensor).contiguous()


def _card(about: Mapping[str, Any]) -> str:
    config, task = about["trial_config"], about["task"]
    rows = "\n".join(f"| {name} | {value:.4f} |" for name, value in about["scores"].items())
    given = {name: value for name, value in config["method_options"].items() if value is not None}
    as_written = {name: value if isinstance(value, str) else json.dumps(value) for name, value in given.items()}
    options = ", ".join(f"{name} {value}" for name, value in as_written.items()) or "no options"
    unused = unused_hyperparameters(config["method"])
    said = {
        "learning_rate": f"learning rate {config['learning_rate']:g}, ",
        "num_epochs": f"{config['num_epochs']} epoch{'' if config['num_epochs'] == 1 else 's'},",
    }
    training = "".join(words for name, words in said.items() if name not in unused) or "fitted at once,"
    fold = config.get("fold")
    of_fold = "" if fold is None else f", without fold {fold} of {config['folds']}"
    return f"""---
library_name: adaptune
base_model: {about["backbone"]}
tags: [adaptune, {config["method"]}]
---

# {config["method"]} for {task["name"]}

Trained with adaptune on the task {task["name"]} ({task["kind"]}, measured by {task["metric"]}) over
{about["backbone"]}: {options}, {training}
seed {config["seed"]}{of_fold}. {about["trained_params"]:,} trained parameters, head included.

| score | value |
|---|---|
{rows}

```python
import trainables

predictor = trainables.load("path/to/this/folder")
predictor.predict(["a text"{'], ["and its pair"' if task["pair"] else ""}])
```
"""
