"""What a trial minimises: the loss of each example of a batch.

Suffixes: S sequences of a batch, L word pieces of the longest, C outputs, K trials.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from trainables.config import parse_class_weights
from trainables.faults import FaultsError, unknown_name
from trainables.task import TaskInfo

# What a model puts out where a row is padded and so no answer can be; the sum of two is still a number.
NOWHERE = torch.finfo(torch.float32).min / 2


class TrainingDivergedError(RuntimeError):
    """The loss is no longer a finite number; training on would only cost time."""


def example_losses(outputs_SC: Tensor, labels_S: Tensor) -> Tensor:
    """Each example's loss (S,): cross-entropy for classes, squared error for a number.

    Where an example may have several labels, labels (S, C) being 1 for those that it has and 0 for others, it is the
    mean over labels of the binary cross-entropy of the output's sigmoid (binary relevance).
    For answers in a text, outputs (S, L, 2) and labels (S, 2) of its first and last word piece, it is the mean of the
    two cross-entropies over places. Outputs of padding must be `NOWHERE`, or as low, so that no answer is there.
    """
    if labels_S.ndim == 2 and outputs_SC.ndim == 2:
        return F.binary_cross_entropy_with_logits(outputs_SC, labels_S.to(outputs_SC.dtype), reduction="none").mean(
            dim=1
        )
    if labels_S.ndim == 2:
        return F.cross_entropy(outputs_SC, labels_S, reduction="none").mean(dim=1)
    if labels_S.is_floating_point():
        return F.mse_loss(outputs_SC[:, 0], labels_S.to(outputs_SC.dtype), reduction="none")
    return F.cross_entropy(outputs_SC, labels_S, reduction="none")


def class_weight_faults(asked: str, task: TaskInfo) -> list[str]:
    """Why a task's classes cannot be weighed as asked: it has none, or a label that is named is none of its."""
    if asked == "none":
        return []
    if task.kind != "classification":
        rule = "weigh the classes of a classification"
        remedy = "leave class_weights at none for it"
        return [f"class_weights: {rule}, but {task.name} is of kind {task.kind}: {remedy}"]
    if asked == "balanced":
        return []
    labels = _labels(task)
    unknown = [label for label in parse_class_weights(asked) if label not in labels]
    return [f"class_weights: {unknown_name(f'label of {task.name}', label, labels)}" for label in unknown]


def class_weights(asked: str, task: TaskInfo, labels: np.ndarray) -> np.ndarray | None:
    """The weight of each class (C,), float64, of which the mean over the training rows is 1; None where all weigh 1.

    `balanced` is scikit-learn's: a class with n_c of the n rows of train weighs n / (k n_c), k being the classes that
    have a row there. Of weights by label only the ratios count, and labels that are not named are given 1. `labels`
    (N,) are those of train. Raises `FaultsError` where the task's classes cannot be weighed so.
    """
    if faults := class_weight_faults(asked, task):
        raise FaultsError("trial", faults)
    if asked == "none":
        return None
    counts = np.bincount(labels, minlength=task.num_labels)
    if asked == "balanced":
        present = counts > 0
        return np.where(present, len(labels) / (present.sum() * np.maximum(counts, 1)), 1.0)
    given = parse_class_weights(asked)
    weights = np.array([given.get(label, 1.0) for label in _labels(task)])
    scaled: np.ndarray = weights * (len(labels) / (counts @ weights))
    return scaled


def weight_matrix(weights: Sequence[np.ndarray | None], device: torch.device) -> Tensor | None:
    """The class weights of some trials (K, C), float32, ones for trials without; None where none has any."""
    known = next((each for each in weights if each is not None), None)
    if known is None:
        return None
    rows = [np.ones_like(known) if each is None else each for each in weights]
    return torch.from_numpy(np.stack(rows)).float().to(device)


def trial_losses(losses_S: Tensor, labels_S: Tensor, weights_KC: Tensor | None, num_trials: int) -> Tensor:
    """Each trial's loss (K,): the mean over its rows of the batch, each row's loss times the weight of its class.

    The sum is divided by the number of rows, and not, as `torch.nn.CrossEntropyLoss(weight=...)` does, by the sum of
    the batch's weights: so a row counts the same whichever rows it comes with, the mean over batches is the weighted
    mean over train, and a batch of one class keeps its weight. Since weights have a mean of 1 over train, learning
    rates and clipping mean what they mean without.
    """
    losses_KB = losses_S.view(num_trials, -1)
    if weights_KC is not None:
        losses_KB = losses_KB * weights_KC.gather(1, labels_S.view(num_trials, -1))
    return losses_KB.mean(dim=1)


def _labels(task: TaskInfo) -> tuple[str, ...]:
    """What the classes are called, by index; their numbers where they have no names."""
    return task.label_names or tuple(map(str, range(task.num_labels)))
