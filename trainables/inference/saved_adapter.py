"""Trained adapters on disk: private weights only, as safetensors, with what is needed to use them again.

A folder holds `adapter_config.json` (configuration, task, backbone), `adapter_model.safetensors` (the tensors that are
the trial's own: about a megabyte for an adapter), `README.md` (a model card with the scores), and in `references/` the
files that options of the method name. No pickle is read or written.
"""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from trainables.backbones.loading import load_backbone, stand_in
from trainables.config import TrialConfig
from trainables.device.hardware import device_named
from trainables.faults import FaultsError
from trainables.inference.predictor import Predictor
from trainables.methods import AUTO, option_names, reference_names, references_of, unused_hyperparameters, uses_backbone
from trainables.nn.encoder import POOLINGS
from trainables.task import TaskInfo
from trainables.training.model import AdaptedModel, build_model, frozen_buffers

# 2 since what the head reads is an option of every method.
FORMAT_VERSION = 2
CONFIG, WEIGHTS, CARD = "adapter_config.json", "adapter_model.safetensors", "README.md"
REFERENCES = "references"


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
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {name: _without_trial_axis(tensor) for name, tensor in own_tensors(model).items()}
    _keep_references(folder, references_of(config.method, config.method_options))
    about = {
        "format_version": FORMAT_VERSION,
        "library": "adaptune",
        "backbone": config.backbone,
        "backbone_fingerprint": backbone_fingerprint,
        "trial_config": _with_what_is_read(config, model).to_dict(),
        "task": asdict(task),
        "scores": dict(scores),
        "trained_params": sum(p.numel() for p in model.parameters() if p.requires_grad),
    }
    # The configuration comes last: a folder that has one is whole.
    save_file(tensors, folder / f".{WEIGHTS}.tmp")
    os.replace(folder / f".{WEIGHTS}.tmp", folder / WEIGHTS)
    (folder / CARD).write_text(_card(about), encoding="utf-8")
    (folder / f".{CONFIG}.tmp").write_text(json.dumps(about, indent=2) + "\n", encoding="utf-8")
    os.replace(folder / f".{CONFIG}.tmp", folder / CONFIG)


def load(path: str | Path, *, device: str = "cpu", precision: str = "fp32") -> Predictor:
    """A predictor from a saved folder.

    The backbone is found by the name it was trained under. Raises `FaultsError` where the folder is not whole, or the
    backbone is not the one the adapter was trained on.
    """
    folder = Path(path)
    try:
        about = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
        tensors = load_file(folder / WEIGHTS)
    except (OSError, ValueError) as error:
        raise FaultsError(f"adapter {folder}", [f"must hold {CONFIG} and {WEIGHTS}, but {error}"]) from None
    if about.get("format_version") not in (1, FORMAT_VERSION):
        fault = f"format_version must be 1 or {FORMAT_VERSION}, but got {about.get('format_version')!r}"
        raise FaultsError(f"adapter {folder}", [fault])
    config = _with_own_references(TrialConfig.from_dict(about["trial_config"]), folder)
    if about["format_version"] == 1:
        config = _as_it_was_read(config)
    task = TaskInfo(**{**about["task"], "label_names": tuple(about["task"]["label_names"])})
    dtype = {"fp32": torch.float32, "bf16": torch.bfloat16}[precision]
    place, reads_backbone = device_named(device), uses_backbone(config.method)
    backbone = load_backbone(config.backbone, device=place, compute_dtype=dtype) if reads_backbone else stand_in(place)
    if reads_backbone and backbone.info.fingerprint != about["backbone_fingerprint"]:
        rule = "an adapter fits only the weights it was trained on"
        fault = f"{rule}, but {config.backbone} is {backbone.info.fingerprint}, not {about['backbone_fingerprint']}"
        raise FaultsError(f"adapter {folder}", [fault])
    model = build_model(backbone.encoder, [config], task.num_labels, kind=task.kind)
    own = own_tensors(model)
    if own.keys() != tensors.keys():
        odd = sorted(own.keys() ^ tensors.keys())
        raise FaultsError(f"adapter {folder}", [f"{WEIGHTS} must hold the method's tensors, but differs in {odd[:5]}"])
    with torch.no_grad():
        for name, tensor in own.items():
            tensor.copy_(tensors[name].view_as(tensor))
    return Predictor(task=task, config=config, scores=about["scores"], model=model, backbone=backbone)


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
    shutil.rmtree(folder / REFERENCES, ignore_errors=True)
    if fresh.exists():
        os.replace(fresh, folder / REFERENCES)


def _with_own_references(config: TrialConfig, folder: Path) -> TrialConfig:
    """The configuration with the files and folders its options name where they were saved with it."""
    options = dict(config.method_options)
    for name in reference_names(config.method):
        if copies := sorted((folder / REFERENCES / name).glob("*")):
            options[name] = ",".join(str(path) for path in copies)
    return dataclasses.replace(config, method_options=options)


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
    options = ", ".join(f"{name} {value}" for name, value in config["method_options"].items()) or "no options"
    unused = unused_hyperparameters(config["method"])
    said = {
        "learning_rate": f"learning rate {config['learning_rate']:g}, ",
        "num_epochs": f"{config['num_epochs']} epochs,",
    }
    training = "".join(words for name, words in said.items() if name not in unused) or "fitted at once,"
    return f"""---
library_name: adaptune
base_model: {about["backbone"]}
tags: [adaptune, {config["method"]}]
---

# {config["method"]} for {task["name"]}

Trained with adaptune on the task {task["name"]} ({task["kind"]}, measured by {task["metric"]}) over
{about["backbone"]}: {options}, {training}
seed {config["seed"]}. {about["trained_params"]:,} trained parameters, head included.

| score | value |
|---|---|
{rows}

```python
import trainables

predictor = trainables.load("path/to/this/folder")
predictor.predict(["a text"{'], ["and its pair"' if task["pair"] else ""}])
```
"""
