"""Trained adapters on disk: private weights only, as safetensors, with what is needed to use them again.

A folder holds `adapter_config.json` (configuration, task, backbone), `adapter_model.safetensors` (the trained tensors:
about a megabyte for an adapter) and `README.md` (a model card with the scores). No pickle is read or written.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from safetensors.torch import load_file, save_file

from trainables.backbone import Backbone, load_backbone
from trainables.config import TrialConfig
from trainables.data import TokenizedSplit, encode
from trainables.evaluation import predict
from trainables.faults import FaultsError
from trainables.model import AdaptedModel, build_model
from trainables.task import TaskInfo

FORMAT_VERSION = 1
CONFIG, WEIGHTS, CARD = "adapter_config.json", "adapter_model.safetensors", "README.md"


@dataclass(frozen=True, kw_only=True, eq=False)
class Predictor:
    """A trained model that answers for texts."""

    task: TaskInfo
    config: TrialConfig
    scores: Mapping[str, float]
    _model: AdaptedModel
    _backbone: Backbone

    def logits(self, texts: Sequence[str], pairs: Sequence[str] | None = None) -> np.ndarray:
        """Outputs (N, C) in float32: one a class, or the one number of a regression."""
        return predict(self._model, self._encode(texts, pairs))[0]

    def predict(self, texts: Sequence[str], pairs: Sequence[str] | None = None) -> list[str] | list[int] | list[float]:
        """The label of each text (its name, or its number where labels have no names), or its score.

        `pairs` holds the second text of each row where the task is one of pairs. Raises `FaultsError` where the texts
        do not fit the task.
        """
        outputs = self.logits(texts, pairs)
        if self.task.kind == "regression":
            return [float(value) for value in outputs[:, 0]]
        classes = outputs.argmax(axis=1)
        names = self.task.label_names
        return [names[int(label)] for label in classes] if names else [int(label) for label in classes]

    def _encode(self, texts: Sequence[str], pairs: Sequence[str] | None) -> TokenizedSplit:
        faults = []
        if self.task.pair is (pairs is None):
            rule = "needs the second text of each row" if self.task.pair else "takes single texts, no pairs"
            faults.append(f"pairs: the task {self.task.name} {rule}")
        elif pairs is not None and len(pairs) != len(texts):
            faults.append(f"pairs: must be as many as texts, but got {len(pairs)} for {len(texts)}")
        if isinstance(texts, str) or not texts:
            faults.append(f"texts: must be a non-empty list of texts, but got {texts!r}")
        if faults:
            raise FaultsError("predict", faults)
        columns = {"text_a": pa.array(texts, pa.string()), "label": pa.array([0] * len(texts), pa.int64())}
        if pairs is not None:
            columns["text_b"] = pa.array(pairs, pa.string())
        return encode(pa.table(columns), self._backbone.tokenizer, self.config.max_length)


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
    tensors = {name: _without_trial_axis(p) for name, p in model.named_parameters() if p.requires_grad}
    about = {
        "format_version": FORMAT_VERSION,
        "library": "adaptune",
        "backbone": config.backbone,
        "backbone_fingerprint": backbone_fingerprint,
        "trial_config": config.to_dict(),
        "task": asdict(task),
        "scores": dict(scores),
        "trained_params": sum(tensor.numel() for tensor in tensors.values()),
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
    if about.get("format_version") != FORMAT_VERSION:
        fault = f"format_version must be {FORMAT_VERSION}, but got {about.get('format_version')!r}"
        raise FaultsError(f"adapter {folder}", [fault])
    config = TrialConfig.from_dict(about["trial_config"])
    task = TaskInfo(**{**about["task"], "label_names": tuple(about["task"]["label_names"])})
    dtype = {"fp32": torch.float32, "bf16": torch.bfloat16}[precision]
    backbone = load_backbone(config.backbone, device=torch.device(device), compute_dtype=dtype)
    if backbone.info.fingerprint != about["backbone_fingerprint"]:
        rule = "an adapter fits only the weights it was trained on"
        fault = f"{rule}, but {config.backbone} is {backbone.info.fingerprint}, not {about['backbone_fingerprint']}"
        raise FaultsError(f"adapter {folder}", [fault])
    model = build_model(backbone.encoder, [config], task.num_labels)
    trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
    if trained.keys() != tensors.keys():
        odd = sorted(trained.keys() ^ tensors.keys())
        raise FaultsError(f"adapter {folder}", [f"{WEIGHTS} must hold the method's tensors, but differs in {odd[:5]}"])
    with torch.no_grad():
        for name, parameter in trained.items():
            parameter.copy_(tensors[name].view_as(parameter))
    return Predictor(task=task, config=config, scores=about["scores"], _model=model, _backbone=backbone)


def _without_trial_axis(parameter: torch.Tensor) -> torch.Tensor:
    tensor = parameter.detach().cpu()
    return (tensor[0] if tensor.shape[0] == 1 else tensor).contiguous()


def _card(about: Mapping[str, Any]) -> str:
    config, task = about["trial_config"], about["task"]
    rows = "\n".join(f"| {name} | {value:.4f} |" for name, value in about["scores"].items())
    options = ", ".join(f"{name} {value}" for name, value in config["method_options"].items()) or "no options"
    return f"""---
library_name: adaptune
base_model: {about["backbone"]}
tags: [adaptune, {config["method"]}]
---

# {config["method"]} for {task["name"]}

Trained with adaptune on the task {task["name"]} ({task["kind"]}, measured by {task["metric"]}) over
{about["backbone"]}: {options}, learning rate {config["learning_rate"]:g}, {config["num_epochs"]} epochs,
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
