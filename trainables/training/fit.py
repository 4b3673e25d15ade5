"""The head of a method that fits it at once: what it is given, how its candidates are judged, where it goes."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch

from trainables.config import TrialConfig
from trainables.data.tokenized import TokenizedSplit
from trainables.methods import LabelledFeatures, LinearHead, get_method, parse_options
from trainables.metrics import Metric
from trainables.training.evaluation import score
from trainables.training.loss import example_losses
from trainables.training.model import AdaptedModel
from trainables.training.prefix_cache import PrefixCache


def fit_head(
    model: AdaptedModel,
    config: TrialConfig,
    data: Mapping[str, TokenizedSplit],
    prefixes: PrefixCache,
    metric: Metric | None,
    class_weights: np.ndarray | None = None,
) -> tuple[float, float | None]:
    """Fit the head of a model of one trial to the training rows, weighed by their classes where weights (C,) are given.

    Returns its mean loss on them, and the strength of its penalty where it has one. Candidates are judged by the metric
    on the validation rows; by their loss alone where there is no metric.
    """
    train = _labelled(model, data["train"], prefixes, class_weights)
    validation = _labelled(model, data["validation"], prefixes)

    def judge(head: LinearHead) -> tuple[float, float]:
        outputs = head(validation.features).float()
        loss = example_losses(outputs, validation.labels).mean().item()
        if metric is None:
            return -loss, loss
        found = score(outputs.numpy(), data["validation"], metric)[metric.name]
        return (found if metric.mode == "max" else -found), loss

    options = parse_options(config.method, config.method_options)
    head = get_method(config.method).fit(train, options, judge)  # type: ignore[attr-defined]  # what is fitted has it
    with torch.no_grad():
        model.head.weight.copy_(head.weight[None])
        model.head.bias.copy_(head.bias[None])
    losses_N = example_losses(head(train.features), train.labels)
    return (losses_N if train.weights is None else losses_N * train.weights).mean().item(), head.l2


def _labelled(
    model: AdaptedModel, split: TokenizedSplit, prefixes: PrefixCache, class_weights: np.ndarray | None = None
) -> LabelledFeatures:
    labels = torch.from_numpy(np.array(split.labels))  # a copy: what is read from a file cannot be written to
    is_number = labels.dtype != torch.int64
    return LabelledFeatures(
        features=prefixes.features(split, model.encoder).in_float64(),
        labels=labels.double() if is_number else labels,
        num_classes=None if is_number else model.head.bias.shape[-1],
        weights=None if class_weights is None else torch.from_numpy(class_weights)[labels],
    )
