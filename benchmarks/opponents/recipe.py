"""The recipe of a trial that every opponent trains by, equal to adaptune's: steps, optimizer, scores, backbone.

Runs in the opponents' own environment and knows nothing of adaptune. Where the two sides differ:

- A batch here may be the short rest of an epoch, there it straddles two epochs: over the same number of steps the
  opponents train on up to 31 rows an epoch less.
- The order of rows and the dropout masks of a seed are each side's own.

The linear schedule is the same step by step: its first step has a rate of zero on both sides, its last the smallest
above zero.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from backbone import backbone_folder
from transformers import BertModel, EvalPrediction, TrainingArguments

BATCH_SIZE = 32


def pretrained_encoder() -> BertModel:
    """MiniLM in float32, without the pooler, which its training did not touch."""
    return BertModel.from_pretrained(backbone_folder(), add_pooling_layer=False)


def num_steps(num_rows: int, num_epochs: int) -> int:
    """Optimizer steps of a trial."""
    return max(1, num_rows * num_epochs // BATCH_SIZE)


def training_arguments(output_dir: str, *, num_rows: int, num_epochs: int, **chosen: Any) -> TrainingArguments:
    """A Trainer's arguments: what the recipe fixes, and what only costs time here.

    Of the defaults that stay: float32, AdamW (fused) with decay of matrices alone, clipping at a global norm of 1, no
    grouping of rows by length.
    """
    steps = num_steps(num_rows, num_epochs)
    given = {
        "output_dir": output_dir,
        "per_device_train_batch_size": BATCH_SIZE,
        "per_device_eval_batch_size": BATCH_SIZE,  # 8 by default
        "max_steps": steps,
        "warmup_steps": int(0.1 * steps),
        "lr_scheduler_type": "linear",
        "adam_epsilon": 1e-6,
        "weight_decay": 0.01,
        "max_grad_norm": 1.0,
        "use_cpu": True,
        "save_strategy": "no",  # no checkpoint is ever read again: the last epoch is the result
        "report_to": "none",  # otherwise every installed tracker is told of every trial a second time
        "disable_tqdm": True,
    }
    return TrainingArguments(**{**given, **chosen})


def scorer(metric: str) -> Callable[[EvalPrediction], dict[str, float]]:
    """What a `Trainer` calls with predictions: "score" by the task's metric, accuracy or f1_and_accuracy."""

    def score(predicted: EvalPrediction) -> dict[str, float]:
        classes, labels = np.asarray(predicted.predictions).argmax(axis=-1), np.asarray(predicted.label_ids)
        accuracy = float(np.mean(classes == labels))
        if metric == "accuracy":
            return {"score": accuracy}
        true_positives = int(np.sum((classes == 1) & (labels == 1)))
        positives = int(np.sum(classes == 1) + np.sum(labels == 1))
        f1 = 2 * true_positives / positives if positives else 0.0
        return {"score": (f1 + accuracy) / 2}

    return score


def last_score(log_history: list[dict[str, float]]) -> float:
    """The validation score after the last epoch, of what a `Trainer` has logged."""
    return next(entry["eval_score"] for entry in reversed(log_history) if "eval_score" in entry)
