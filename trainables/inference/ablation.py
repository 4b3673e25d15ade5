"""What trained adapters are worth, layer by layer: scores without those of a span of layers (Figure 6 of the paper).

A trained model is evaluated with its adapters taken out of every contiguous span of layers, nothing being trained
again. The trained LayerNorms and the head stay as they are: the paper leaves that open, and this is its plain reading.

An adapter whose up-projection is zero changes nothing, so the variants of a model differ only in numbers of its trained
row. They pass through the frozen encoder stacked like the trials of a pack, several in one pass.

Suffixes: V variants, P trained numbers of one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from trainables import metrics, tasks
from trainables.backbones.loading import describe_backbone, meta_encoder
from trainables.config import TrialConfig
from trainables.data.tokenized import TokenizedSplit, tokenize
from trainables.device.hardware import device_named
from trainables.faults import FaultsError, unknown_name
from trainables.inference.predictor import Predictor
from trainables.inference.saved_adapter import load
from trainables.metrics import Metric
from trainables.nn.adapters import Adapter
from trainables.training.evaluation import predict_stacked, score
from trainables.training.model import AdaptedModel, build_model
from trainables.training.weights import TrainedWeights

# Variants that pass through the encoder together; their batches are as much shorter, so a pass stays as long.
STACKED = {"cpu": 8, "cuda": 32}

_RULE = "must train bottleneck adapters in the layers, such as those of the method adapter"


@dataclass(frozen=True, kw_only=True)
class AblatedSpan:
    """What is left without the adapters of layers first_layer to last_layer, both included, counted from 0."""

    first_layer: int
    last_layer: int
    scores: Mapping[str, float]


@dataclass(frozen=True, kw_only=True)
class Ablation:
    """The scores of a trained model whole and without the adapters of each of its L(L+1)/2 spans of layers.

    Scores are the metric, its components, "accuracy" where classes are predicted, and "loss".
    """

    metric: str  # the one of the task's
    num_layers: int
    whole: Mapping[str, float]
    spans: tuple[AblatedSpan, ...]  # by first layer, then by last


def ablate_saved(
    folder: str | Path,
    split: str = "validation",
    *,
    device: str | None = None,
    precision: str = "auto",
    cache_dir: Path | None = None,
) -> Ablation:
    """Ablate a saved adapter on a split of the task it was trained for.

    The task's rows are read from where the training read them. `device`, `cache_dir` and their defaults are those of
    `trainables.engine.engine.Engine`, `precision` is that of `TrialConfig`. Raises `FaultsError` where the folder, its
    backbone or its task cannot be had, the task has no such split, or there are no adapters.
    """
    predictor = load(folder, device=str(device_named(device)), precision=precision)
    check_ablation(predictor.config, split)
    return ablate(predictor.model, _rows(predictor, split, cache_dir), metrics.get(predictor.task.metric))


def check_ablation(config: TrialConfig, split: str = "validation") -> None:
    """Raise `FaultsError` where a trial could not be ablated on a split once it is trained. Needs no weights."""
    shape = describe_backbone(config.backbone, weights=False).shape
    with torch.device("meta"):
        model = build_model(meta_encoder(shape), [config], num_outputs=1)
    faults = [] if _adapters(model) else [f"method: {_RULE}, but got {config.method!r}"]
    task = tasks.load_trial(config)
    if split not in task.splits:
        faults.append(unknown_name(f"split of {task.info.name}", split, task.splits))
    if faults:
        raise FaultsError("ablation", faults)


def ablate(model: AdaptedModel, split: TokenizedSplit, metric: Metric) -> Ablation:
    """Evaluate a trained model whole and without the adapters of every span of layers.

    The model holds one trial and its float32 weights, as `trainables.load` gives it, and has them again afterwards.
    Spans that take out the same adapters are evaluated once, so one of layers without any scores what the whole model
    does. Raises `FaultsError` where the model has no trained adapters.
    """
    adapters = _adapters(model)
    if not adapters:
        raise FaultsError("ablation", [f"model: {_RULE}, but got one without"])
    num_layers = len(model.encoder.layers)
    spans = [(first, last) for first in range(num_layers) for last in range(first, num_layers)]
    taken_out = {(first, last): frozenset(adapters) & frozenset(range(first, last + 1)) for first, last in spans}
    variants = list(dict.fromkeys([frozenset[int](), *taken_out.values()]))
    scores = dict(zip(variants, _score_variants(model, adapters, variants, split, metric), strict=True))
    return Ablation(
        metric=metric.name,
        num_layers=num_layers,
        whole=scores[frozenset()],
        spans=tuple(
            AblatedSpan(first_layer=first, last_layer=last, scores=scores[taken_out[first, last]])
            for first, last in spans
        ),
    )


def _adapters(model: AdaptedModel) -> dict[int, list[Adapter]]:
    """The trained adapters of each layer that has any."""
    found = {
        index: [module for module in layer.modules() if isinstance(module, Adapter) and module.up_proj.requires_grad]
        for index, layer in enumerate(model.encoder.layers)
    }
    return {index: adapters for index, adapters in found.items() if adapters}


@torch.no_grad()
def _score_variants(
    model: AdaptedModel,
    adapters: Mapping[int, Sequence[Adapter]],
    variants: Sequence[frozenset[int]],
    split: TokenizedSplit,
    metric: Metric,
) -> list[dict[str, float]]:
    """What a model scores without the adapters of each set of layers."""
    weights = TrainedWeights(model)
    whole_P = weights.rows[0]
    is_up = {index: _up_projections(model, weights, of_layer) for index, of_layer in adapters.items()}
    stacked = STACKED[weights.device.type]
    scores: list[dict[str, float]] = []
    try:
        for first in range(0, len(variants), stacked):
            together = variants[first : first + stacked]
            rows_VP = whole_P.repeat(len(together), 1)
            for row_P, layers in zip(rows_VP, together, strict=True):
                for layer in layers:
                    row_P[is_up[layer]] = 0.0
            weights.replace_rows(rows_VP)
            weights.show(model, 0, len(together))
            scores += [_scores(outputs, split, metric) for outputs in predict_stacked(model, split)]
    finally:
        weights.replace_rows(whole_P[None])
        weights.show(model, 0, 1, masters=True)
    return scores


def _up_projections(model: AdaptedModel, weights: TrainedWeights, adapters: Sequence[Adapter]) -> Tensor:
    """Which numbers (P,) of the model's row are the up-projections of these adapters: those that change with them."""
    tensors = [tensor for adapter in adapters for tensor in (adapter.up_proj, adapter.up_bias)]
    values = [tensor.clone() for tensor in tensors]
    before_P = weights.read(model)[0]
    for tensor in tensors:
        tensor.zero_()
    is_up = weights.read(model)[0] != before_P
    for tensor, value in zip(tensors, values, strict=True):
        tensor.copy_(value)
    return is_up


def _scores(outputs: np.ndarray, split: TokenizedSplit, metric: Metric) -> dict[str, float]:
    """What an evaluation measures, and accuracy too where classes are predicted."""
    accuracy = score(outputs, split, metrics.get("accuracy")) if metric.kind == "classification" else {}
    return {**accuracy, **score(outputs, split, metric)}


def _rows(predictor: Predictor, split: str, cache_dir: Path | None) -> TokenizedSplit:
    """A split of the task that a saved adapter was trained for, in word pieces."""
    config, backbone = predictor.config, predictor.backbone
    fingerprint, prompt = str(backbone.info.fingerprint), backbone.info.prompt
    assert backbone.tokenizer is not None  # adapters have a backbone
    task, length = tasks.load_trial(config), config.max_length
    return tokenize(task, backbone.tokenizer, fingerprint, length, cache_dir, prompt=prompt)[split]
