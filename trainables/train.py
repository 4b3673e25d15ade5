"""The training loop, read top to bottom: one trial (a pack of one) to its last epoch.

Protocol of Houlsby et al. 2019, section 3.1, with the details its released code adds: AdamW, linear warm-up over the
first tenth of the steps and linear decay to zero, gradients clipped at a global norm, the last epoch evaluated.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from trainables.config import TrialConfig
from trainables.data import TokenizedSplit, epoch_ends, evaluation_batches, pad, training_batches
from trainables.metrics import Metric
from trainables.model import AdaptedModel, derive_seed
from trainables.outcome import EpochReport, OutcomeStatus, Report


class TrainingDivergedError(RuntimeError):
    """The loss is no longer a finite number; training on would only cost time."""


@dataclass(frozen=True, kw_only=True)
class Training:
    """What came of training one trial; test scores only where it reached its last epoch."""

    status: OutcomeStatus
    epochs: tuple[EpochReport, ...]
    test_score: float | None
    test: Mapping[str, float]
    examples_per_second: float | None


def train(
    model: AdaptedModel,
    data: Mapping[str, TokenizedSplit],
    config: TrialConfig,
    metric: Metric,
    *,
    report: Report = lambda epoch: True,
    cancelled: Callable[[], bool] = lambda: False,
) -> Training:
    """Train one trial, reporting after each epoch.

    Stops at the next step once `cancelled()` is true, and after an epoch whose `report` returns False. Raises
    `TrainingDivergedError` where the loss is no longer finite, in training or in evaluation.
    """
    train_split = data["train"]
    batches = training_batches(
        train_split.lengths,
        batch_size=config.batch_size,
        num_epochs=config.num_epochs,
        seed=derive_seed(config.seed, "data order"),
    )
    ends = epoch_ends(len(train_split), batch_size=config.batch_size, num_epochs=config.num_epochs)
    trained = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    decayed = [p for name, p in trained if not (name.endswith("bias") or "layernorm" in name)]
    spared = [p for name, p in trained if name.endswith("bias") or "layernorm" in name]
    optimizer = torch.optim.AdamW(
        [{"params": decayed, "weight_decay": config.weight_decay}, {"params": spared, "weight_decay": 0.0}],
        lr=config.learning_rate,
        eps=1e-6,
        fused=True,
    )
    parameters = [p for _, p in trained]
    device = parameters[0].device

    epochs: list[EpochReport] = []
    training_s = 0.0
    step = 0
    for epoch, end in enumerate(ends, start=1):
        started = time.perf_counter()
        model.train()
        loss_sum = torch.zeros((), device=device)
        first_step = step
        for rows in batches[step:end]:
            if cancelled():
                return Training(
                    status=OutcomeStatus.CANCELLED,
                    epochs=tuple(epochs),
                    test_score=None,
                    test={},
                    examples_per_second=_rate(first_step * config.batch_size, training_s),
                )
            learning_rate = config.learning_rate * schedule(step, len(batches), config.warmup_ratio)
            for group in optimizer.param_groups:
                group["lr"] = learning_rate
            inputs, labels = _to_device(train_split, rows, device)
            loss = _losses(model(*inputs), labels).mean()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(parameters, config.max_grad_norm)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            loss_sum += loss.detach()
            step += 1
            # Reading a number waits for the device, so not at every step.
            if step % 50 == 0 and not math.isfinite(loss_sum.item()):
                break
        # With fewer steps than epochs an epoch may hold no step, and the last loss stands.
        train_loss = loss_sum.item() / (step - first_step) if step > first_step else epochs[-1].train_loss
        if not math.isfinite(train_loss):
            raise TrainingDivergedError(f"the training loss became {train_loss} by step {step} (epoch {epoch})")
        training_s += time.perf_counter() - started

        validation = evaluate(model, data["validation"], metric)
        epochs.append(
            EpochReport(
                epoch=epoch,
                step=step,
                train_loss=train_loss,
                validation_score=validation[metric.name],
                validation=validation,
                duration_s=time.perf_counter() - started,
            )
        )
        if not report(epochs[-1]) and epoch < len(ends):
            return Training(
                status=OutcomeStatus.PRUNED,
                epochs=tuple(epochs),
                test_score=None,
                test={},
                examples_per_second=_rate(step * config.batch_size, training_s),
            )

    test = evaluate(model, data["test"], metric) if "test" in data else {}
    return Training(
        status=OutcomeStatus.COMPLETED,
        epochs=tuple(epochs),
        test_score=test.get(metric.name),
        test=test,
        examples_per_second=_rate(step * config.batch_size, training_s),
    )


def schedule(step: int, num_steps: int, warmup_ratio: float) -> float:
    """The share of the peak learning rate at a step counted from 0: linear warm-up to 1, then linear decay to 0."""
    warmup = int(warmup_ratio * num_steps)
    if step < warmup:
        return step / warmup
    return max(0.0, (num_steps - step) / max(1, num_steps - warmup))


@torch.inference_mode()
def evaluate(model: AdaptedModel, split: TokenizedSplit, metric: Metric) -> dict[str, float]:
    """The metric's components, the metric itself and "loss", over a whole split.

    Raises `TrainingDivergedError` where the loss is not finite, as after a last step that went too far: classes
    picked from NaN would pass for a score.
    """
    outputs, labels = predict(model, split)
    loss = _losses(torch.from_numpy(outputs), torch.tensor(labels)).mean().item()  # labels may be a read-only map
    if not math.isfinite(loss):
        raise TrainingDivergedError(f"the evaluation loss became {loss}")
    predictions = outputs.argmax(axis=1) if metric.kind == "classification" else outputs[:, 0]
    return {**metric.compute(predictions, labels), "loss": loss}


@torch.inference_mode()
def predict(model: AdaptedModel, split: TokenizedSplit) -> tuple[np.ndarray, np.ndarray]:
    """Logits (N, C) in float32 and labels (N,), in the order of the split."""
    model.eval()
    device = model.head.weight.device
    outputs = np.empty((len(split), model.head.weight.shape[-1]), dtype=np.float32)
    for rows in evaluation_batches(split.lengths):
        inputs, _ = _to_device(split, rows, device)
        outputs[rows] = model(*inputs).cpu().numpy()
    return outputs, np.asarray(split.labels)


def _to_device(
    split: TokenizedSplit, rows: np.ndarray, device: torch.device
) -> tuple[tuple[Tensor, Tensor, Tensor | None], Tensor]:
    """A padded batch: (input ids, token types, lengths where any sequence is padded) and labels."""
    batch = pad(split, rows)
    input_ids, token_types, labels = (
        torch.from_numpy(array).to(device, non_blocking=True)
        for array in (batch.input_ids, batch.token_type_ids, batch.labels)
    )
    # Known on the host, so a batch without padding costs neither a mask nor a wait for the device.
    ragged = int(batch.lengths.min()) < batch.input_ids.shape[1]
    padding = torch.from_numpy(batch.lengths).to(device, non_blocking=True) if ragged else None
    return (input_ids, token_types, padding), labels


def _losses(outputs_SC: Tensor, labels_S: Tensor) -> Tensor:
    """Each example's loss (S,): cross-entropy for classes, squared error for a number."""
    if labels_S.is_floating_point():
        return F.mse_loss(outputs_SC[:, 0], labels_S.to(outputs_SC.dtype), reduction="none")
    return F.cross_entropy(outputs_SC, labels_S, reduction="none")


def _rate(examples: int, seconds: float) -> float | None:
    return examples / seconds if seconds > 0 else None
