"""Saved adapters whose weights are all random, over random checkpoints."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

import torch

from tests.factories import trial_config
from trainables.backbones.loading import load_backbone
from trainables.config import Scalar
from trainables.inference.saved_adapter import save
from trainables.metrics import TaskKind
from trainables.task import TaskInfo
from trainables.training.model import build_model

# On the tokenizer of the random checkpoints, of which several words are known.
TEXTS = ["good w1 w2", "bad", "w3 good w4 w5 bad"]
PAIRS = ["w1", "w2 w2 bad w4", "good"]
_METRICS = {
    "classification": "accuracy",
    "regression": "pearson",
    "multilabel": "micro_f1",
    "extractive_qa": "squad_f1",
}


class Saved(Protocol):
    """Saves an adapter over a random checkpoint of a family."""

    def __call__(
        self,
        family: str,
        method: str,
        options: Mapping[str, Scalar],
        *,
        kind: TaskKind = "classification",
        pair: bool = False,
    ) -> Path: ...


def save_random(
    folder: Path, checkpoint: Path, method: str, options: Mapping[str, Scalar], *, kind: TaskKind, pair: bool
) -> None:
    """Save an adapter over a checkpoint. A classification has three classes with names."""
    backbone = load_backbone(str(checkpoint), device=torch.device("cpu"), compute_dtype=torch.float32)
    count = {"regression": 1, "extractive_qa": 2}.get(kind, 3)
    names = ("no", "perhaps", "yes") if count == 3 else ()
    task = TaskInfo(
        name="t", kind=kind, pair=pair, num_labels=count, label_names=names, metric=_METRICS[kind], source="x"
    )
    config = trial_config(method, backbone=str(checkpoint), max_length=24, method_options=options)
    model = build_model(backbone.encoder, [config], count, kind=kind)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter += 0.1 * torch.randn(parameter.shape, generator=generator)
    fingerprint = str(backbone.info.fingerprint)
    save(folder, model, config, task, backbone_fingerprint=fingerprint, scores={"test/accuracy": 0.5})
