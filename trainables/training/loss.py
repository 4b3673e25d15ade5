"""What a trial minimises: the loss of each example of a batch.

Suffixes: S sequences of a batch, L word pieces of the longest, C outputs.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

# What a model puts out where a row is padded and so no answer can be; the sum of two is still a number.
NOWHERE = torch.finfo(torch.float32).min / 2


class TrainingDivergedError(RuntimeError):
    """The loss is no longer a finite number; training on would only cost time."""


def example_losses(outputs_SC: Tensor, labels_S: Tensor) -> Tensor:
    """Each example's loss (S,): cross-entropy for classes, squared error for a number.

    For answers in a text, outputs (S, L, 2) and labels (S, 2) of its first and last word piece, it is the mean of the
    two cross-entropies over places. Outputs of padding must be `NOWHERE`, or as low, so that no answer is there.
    """
    if labels_S.ndim == 2:
        return F.cross_entropy(outputs_SC, labels_S, reduction="none").mean(dim=1)
    if labels_S.is_floating_point():
        return F.mse_loss(outputs_SC[:, 0], labels_S.to(outputs_SC.dtype), reduction="none")
    return F.cross_entropy(outputs_SC, labels_S, reduction="none")
