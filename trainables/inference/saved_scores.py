"""Saved models scored over a backbone that is loaded: as they were saved, or with the head of another task.

A model that was trained on task after task has one encoder and a head a task. The encoder is what was saved last; the
head of each earlier task is what it was when that task was trained, kept in a file of its own.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from safetensors.torch import save as safetensors_bytes
from torch import Tensor

from trainables.backbones.loading import Backbone
from trainables.config import TrialConfig
from trainables.data.tokenized import TokenizedSplit
from trainables.faults import FaultsError
from trainables.inference.saved_adapter import own_tensors, read_tensors
from trainables.inference.saved_files import read_folder
from trainables.inference.saved_names import write_file
from trainables.metrics import Metric
from trainables.task import TaskInfo
from trainables.training.evaluation import predict, score
from trainables.training.model import AdaptedModel, build_model
from trainables.training.start import HEAD


@dataclass(frozen=True, kw_only=True)
class SavedScores:
    """What a saved model scores on a split."""

    metric: str  #: the task's
    scores: Mapping[str, float]  #: the metric, its components and "loss"
    num_rows: int  #: of the split; windows, where it is of extractive question answering
    outputs_sha256: str  #: of the outputs of all its rows, float32: equal for equal outputs to the last bit


def score_saved(model: AdaptedModel, split: TokenizedSplit, metric: Metric) -> SavedScores:
    """Evaluate a model of one trial. Raises `TrainingDivergedError` where the loss is not finite."""
    outputs, _ = predict(model, split)
    return SavedScores(
        metric=metric.name,
        scores=score(outputs, split, metric),
        num_rows=len(split),
        outputs_sha256=hashlib.sha256(np.ascontiguousarray(outputs).tobytes()).hexdigest(),
    )


def start_of(folder: Path) -> dict[str, Tensor]:
    """What another trial may start from: the weights of a saved folder. Raises `FaultsError` where it is faulty."""
    return read_tensors(read_folder(folder))


def write_head(folder: Path, file: Path) -> None:
    """Keep the head of a saved folder in a safetensors file of its own. Raises `FaultsError`, `OSError`."""
    head = {name: tensor for name, tensor in start_of(folder).items() if name.startswith(HEAD)}
    file.parent.mkdir(parents=True, exist_ok=True)
    write_file(file, safetensors_bytes(head))


def load_with_head(folder: Path, head: Path, config: TrialConfig, task: TaskInfo, backbone: Backbone) -> AdaptedModel:
    """A model with what a saved folder has trained in the encoder, and this head of this task.

    Raises `FaultsError` where either is faulty, or was trained on another backbone or another method.
    """
    saved = read_folder(folder)
    if saved.backbone_fingerprint != backbone.info.fingerprint:
        rule = "an encoder fits only the backbone it was trained from"
        raise saved.fault(f"{rule}, but that is {saved.backbone_fingerprint}, not {backbone.info.fingerprint}")
    try:
        own_head = load_file(head)
    except (OSError, ValueError, SafetensorError) as error:
        raise FaultsError("head", [f"{head} must be readable as safetensors, but {error}"]) from None
    given = {name: tensor for name, tensor in read_tensors(saved).items() if not name.startswith(HEAD)} | own_head
    model = build_model(backbone.encoder, [config], task.num_labels, kind=task.kind)
    own = own_tensors(model)
    odd = sorted(own.keys() ^ given.keys())
    odd += sorted(name for name in own.keys() & given.keys() if own[name].numel() != given[name].numel())
    if odd:
        raise saved.fault(f"{config.method} on {task.name} has other tensors, such as {', '.join(odd[:5])}")
    with torch.no_grad():
        for name, tensor in own.items():
            tensor.copy_(given[name].view_as(tensor))
    return model
