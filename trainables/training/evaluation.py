"""Scores of trained models over whole splits: large batches, no gradients, nothing read back before the end.

Suffixes: K trials, N rows of a split, S sequences of a batch, L word pieces of the longest, C outputs.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from trainables.data.order import evaluation_batches
from trainables.data.tokenized import TokenizedSplit
from trainables.data.windows import answer_texts
from trainables.device.current import working_on
from trainables.device.memory import is_out_of_memory
from trainables.metrics import Metric, TaskKind
from trainables.nn.encoder import Prefix
from trainables.nn.pieces import Laid, Pieces, lay, pieces_of
from trainables.training.device_data import few_sizes, multiple_of_8, on_device
from trainables.training.loss import NOWHERE, TrainingDivergedError, example_losses
from trainables.training.model import AdaptedModel

# Word pieces of one batch: enough to fill the device, few enough that a CPU's caches hold what a layer works on.
MAX_TOKENS = {"cpu": 2048, "cuda": 65_536}

THRESHOLD = 0.5  # of a label's probability, beyond which a row has it; the same for all, and tuned for none

# What the rows of a trial's segment are rounded up by.
_ROUND_UP = {"cpu": few_sizes, "cuda": multiple_of_8}

PrefixOf = Callable[[Laid], Prefix]  # of the rows of a batch


@torch.inference_mode()
def evaluate(
    model: AdaptedModel, split: TokenizedSplit, metric: Metric, prefix: PrefixOf | None = None
) -> dict[str, float]:
    """The metric's components, the metric itself and "loss", over a whole split, of a model of one trial.

    Raises `TrainingDivergedError` where the loss is not finite, as after a last step that went too far: classes
    picked from NaN would pass for a score.
    """
    return score(predict(model, split, prefix)[0], split, metric)


def score(outputs: np.ndarray, split: TokenizedSplit, metric: Metric) -> dict[str, float]:
    """The metric's components, the metric itself and "loss", of the outputs that `predict` gives for a whole split.

    Raises `TrainingDivergedError` where the loss is not finite.
    """
    labels = np.asarray(split.labels)
    loss = example_losses(torch.from_numpy(outputs), torch.tensor(labels)).mean().item()  # labels may be read-only
    if not math.isfinite(loss):
        raise TrainingDivergedError(f"the evaluation loss became {loss}")
    picked = pick(outputs, split, metric.kind)
    if split.windows is not None:  # a row is a window, and what is scored are questions
        return {**metric.compute(picked, split.windows.right_answers()), "loss": loss}
    if metric.kind == "classification":  # the head has an output for each class of the task
        return {**metric.compute(picked, labels, num_labels=outputs.shape[1]), "loss": loss}
    return {**metric.compute(picked, labels), "loss": loss}


def pick(outputs: np.ndarray, split: TokenizedSplit, kind: TaskKind) -> np.ndarray | list[str]:
    """What such outputs predict: of each row a class or a number (N,), or a text for each question.

    Where a row may have several labels, (N, C), true for those whose probability is more than `THRESHOLD`.
    """
    if split.windows is not None:
        return answer_texts(outputs, split.windows, split.offsets)
    if kind == "multilabel":
        return probabilities_of_labels(outputs) > THRESHOLD
    return outputs.argmax(axis=1) if kind == "classification" else outputs[:, 0]


def probabilities_of_labels(outputs: np.ndarray) -> np.ndarray:
    """The probability of each of several labels (N, C), float64, by the sigmoid of its output."""
    return np.exp(-np.logaddexp(0, -outputs.astype(np.float64)))


def predict(
    model: AdaptedModel, split: TokenizedSplit, prefix: PrefixOf | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Logits (N, C) in float32 and the split's labels, in its order.

    Of a task whose outputs are one of each word piece, logits (N, L, 2), no answer in the padding, and labels (N, 2).
    `prefix` gives the hidden states of a batch's rows above the frozen layers, where those are at hand.
    """
    return predict_stacked(model, split, prefix)[0], np.asarray(split.labels)


@torch.inference_mode()
def predict_stacked(model: AdaptedModel, split: TokenizedSplit, prefix: PrefixOf | None = None) -> np.ndarray:
    """What `predict` gives, (K, N, C) or (K, N, L, 2), of every one of the K trials that stand before a model.

    Each batch passes once, repeated for every trial, and is as much smaller.
    """
    device = model.head.weight.device
    with working_on(device):  # whoever asks may work on another one
        if device.type == "cuda" and prefix is None and model.encoder.body is None:
            return predict_there(model, split)
        return _predict_laid_out(model, split, prefix)


def _predict_laid_out(model: AdaptedModel, split: TokenizedSplit, prefix: PrefixOf | None) -> np.ndarray:
    """What `predict_stacked` gives, each batch laid out by the host."""
    model.eval()
    device, num_trials = model.head.weight.device, model.num_trials
    batches = evaluation_batches(split.lengths, max_tokens=MAX_TOKENS[device.type] // num_trials)
    parts: list[tuple[np.ndarray, Tensor]] = []
    while batches:
        rows = batches.pop(0)
        try:
            laid, pieces, _ = to_device(split, np.tile(rows, num_trials), num_trials, device)
            logits = model(pieces, None if prefix is None else prefix(laid))
            parts.append((rows, logits.view(num_trials, len(rows), *logits.shape[1:])))
        except Exception as error:
            if not is_out_of_memory(error) or len(rows) == 1:
                raise
            batches[:0] = np.array_split(rows, 2)
    # Batches of shorter rows are filled up as padding is.
    longest = max(logits.shape[2:] for _, logits in parts)
    outputs = np.full((num_trials, len(split), *longest), NOWHERE, dtype=np.float32)
    for rows, logits in parts:
        outputs[:, rows, : logits.shape[2]] = logits.cpu().numpy()
    return outputs


@torch.inference_mode()
def predict_there(model: AdaptedModel, split: TokenizedSplit) -> np.ndarray:
    """What `predict_stacked` gives, batches gathered by the device, which is waited for once, at the end.

    The device is to be the one that the thread works on.
    """
    model.eval()
    device, num_trials = model.head.weight.device, model.num_trials
    data = on_device(split, device)
    batches = evaluation_batches(split.lengths, max_tokens=MAX_TOKENS[device.type] // num_trials)
    order_N = np.concatenate(batches)
    order_on_device = torch.from_numpy(order_N).to(device)
    outputs: Tensor | None = None  # in this order
    start = 0
    while batches:
        rows = batches.pop(0)
        lengths = split.lengths[rows]
        try:
            rows_S = order_on_device[start : start + len(rows)].repeat(num_trials)
            pieces, _ = data.batch(rows_S, num_trials, multiple_of_8(int(lengths.sum())), int(lengths.max()))
            logits = model(pieces).view(num_trials, len(rows), -1)
        except Exception as error:
            if not is_out_of_memory(error) or len(rows) == 1:
                raise
            batches[:0] = np.array_split(rows, 2)
            continue
        if outputs is None:  # the first batch has the longest row; shorter ones are filled up as padding is
            outputs = logits.new_full((num_trials, len(split), logits.shape[2]), NOWHERE)
        outputs[:, start : start + len(rows), : logits.shape[2]] = logits
        start += len(rows)
    assert outputs is not None  # a split has rows
    in_order = outputs.cpu().numpy()
    found = np.empty_like(in_order)
    found[:, order_N] = in_order
    is_of_pieces = model.encoder.pooling == "tokens"
    return found.reshape(num_trials, len(split), -1, model.head.weight.shape[-1]) if is_of_pieces else found


def to_device(
    split: TokenizedSplit, rows: np.ndarray, num_trials: int, device: torch.device
) -> tuple[Laid, Pieces, Tensor]:
    """A batch of rows, those of trial after trial, as many of each: where they lie, their word pieces, their labels."""
    laid = lay(rows, split.lengths[rows], num_trials, round_up=_ROUND_UP[device.type])
    sources = np.repeat(split.offsets[rows], laid.lengths_S) + laid.positions_T
    pieces = pieces_of(laid, split.input_ids[sources], split.token_type_ids[sources], device)
    labels = split.labels[rows]
    tensor = torch.from_numpy(labels if labels.dtype == np.int64 else labels.astype(np.float32))
    if device.type == "cuda":  # only from pinned memory does a copy not wait
        tensor = tensor.pin_memory().to(device, non_blocking=True)
    return laid, pieces, tensor
