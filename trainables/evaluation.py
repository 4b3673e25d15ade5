"""Scores of a trained model over whole splits: large batches, no gradients, nothing read back before the end.

Suffixes: N rows of a split, S sequences of a batch, C outputs.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from trainables.data import TokenizedSplit, evaluation_batches, pad
from trainables.encoder import Prefix
from trainables.memory import is_out_of_memory
from trainables.metrics import Metric
from trainables.model import AdaptedModel

# Word pieces of one batch: enough to fill the device, few enough that a CPU's caches hold what a layer works on.
MAX_TOKENS = {"cpu": 2048, "cuda": 65_536}

Inputs = tuple[Tensor, Tensor, Tensor | None]
PrefixOf = Callable[[np.ndarray, int], Prefix]  # of some rows, padded to a length


class TrainingDivergedError(RuntimeError):
    """The loss is no longer a finite number; training on would only cost time."""


@torch.inference_mode()
def evaluate(
    model: AdaptedModel, split: TokenizedSplit, metric: Metric, prefix: PrefixOf | None = None
) -> dict[str, float]:
    """The metric's components, the metric itself and "loss", over a whole split.

    Raises `TrainingDivergedError` where the loss is not finite, as after a last step that went too far: classes
    picked from NaN would pass for a score.
    """
    outputs, labels = predict(model, split, prefix)
    loss = example_losses(torch.from_numpy(outputs), torch.tensor(labels)).mean().item()  # labels may be read-only
    if not math.isfinite(loss):
        raise TrainingDivergedError(f"the evaluation loss became {loss}")
    predictions = outputs.argmax(axis=1) if metric.kind == "classification" else outputs[:, 0]
    return {**metric.compute(predictions, labels), "loss": loss}


@torch.inference_mode()
def predict(
    model: AdaptedModel, split: TokenizedSplit, prefix: PrefixOf | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Logits (N, C) in float32 and labels (N,), in the order of the split.

    `prefix` gives the hidden states of a batch's rows above the frozen layers, where those are at hand.
    """
    model.eval()
    device = model.head.weight.device
    batches = evaluation_batches(split.lengths, max_tokens=MAX_TOKENS[device.type])
    logits, taken = [], []
    while batches:
        rows = batches.pop(0)
        try:
            inputs, _ = to_device(split, rows, device)
            logits.append(model(*inputs, None if prefix is None else prefix(rows, inputs[0].shape[1])))
            taken.append(rows)
        except Exception as error:
            if not is_out_of_memory(error) or len(rows) == 1:
                raise
            batches[:0] = np.array_split(rows, 2)
    outputs = np.empty((len(split), model.head.weight.shape[-1]), dtype=np.float32)
    outputs[np.concatenate(taken)] = torch.cat(logits).cpu().numpy()
    return outputs, np.asarray(split.labels)


def to_device(split: TokenizedSplit, rows: np.ndarray, device: torch.device) -> tuple[Inputs, Tensor]:
    """A padded batch: (input ids, token types, lengths where any sequence is padded) and labels."""
    batch = pad(split, rows, multiple_of=8 if device.type == "cuda" else 1)
    # Known on the host, so a batch without padding costs neither a mask nor a wait for the device.
    ragged = int(batch.lengths.min()) < batch.input_ids.shape[1]
    arrays = [batch.input_ids, batch.token_type_ids, batch.labels, *([batch.lengths] if ragged else [])]
    tensors = [torch.from_numpy(array) for array in arrays]
    if device.type == "cuda":  # only from pinned memory does a copy not wait
        tensors = [tensor.pin_memory().to(device, non_blocking=True) for tensor in tensors]
    input_ids, token_types, labels, *lengths = tensors
    return (input_ids, token_types, lengths[0] if ragged else None), labels


def example_losses(outputs_SC: Tensor, labels_S: Tensor) -> Tensor:
    """Each example's loss (S,): cross-entropy for classes, squared error for a number."""
    if labels_S.is_floating_point():
        return F.mse_loss(outputs_SC[:, 0], labels_S.to(outputs_SC.dtype), reduction="none")
    return F.cross_entropy(outputs_SC, labels_S, reduction="none")
