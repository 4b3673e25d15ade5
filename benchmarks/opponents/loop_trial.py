"""One trial of the opponent "loop": the same model and recipe by a Trainer that was told what saves time.

bf16, batches of similar length padded to their longest row, rows in memory, evaluation in large batches of rows in
order of length, no logs, no checkpoints, no look at every loss for NaN.
"""

from __future__ import annotations

import copy
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Any

import numpy as np
import torch
from adapter_bert import AdapterBert
from recipe import last_score, pretrained_encoder, scorer, training_arguments
from torch import Tensor
from torch.utils.data import Dataset
from transformers import BertModel, Trainer, TrainerCallback, set_seed

EVALUATION_BATCH_SIZE = 256


class Rows(Dataset):
    """Tokenised rows in memory."""

    def __init__(self, arrays: Mapping[str, np.ndarray]) -> None:
        inside = arrays["offsets"][1:-1]
        ids, types = (np.split(arrays[name], inside) for name in ("input_ids", "token_type_ids"))
        self._rows = [
            {"input_ids": row, "token_type_ids": row_types, "labels": int(label)}
            for row, row_types, label in zip(ids, types, arrays["labels"], strict=True)
        ]

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return self._rows[index]


def collate(rows: Sequence[Mapping[str, Any]]) -> dict[str, Tensor]:
    """A batch padded to its longest row."""
    longest = max(len(row["input_ids"]) for row in rows)
    ids, types, mask = np.zeros((3, len(rows), longest), dtype=np.int64)
    for place, row in enumerate(rows):
        length = len(row["input_ids"])
        ids[place, :length] = row["input_ids"]
        types[place, :length] = row["token_type_ids"]
        mask[place, :length] = 1
    arrays = {"input_ids": ids, "token_type_ids": types, "attention_mask": mask}
    return {
        **{name: torch.from_numpy(array) for name, array in arrays.items()},
        "labels": torch.tensor([row["labels"] for row in rows]),
    }


@cache
def encoder() -> BertModel:
    """The encoder as it was published, read once a process."""
    return pretrained_encoder()


def prepare() -> None:
    torch.set_num_threads(1)
    encoder()


class TellScore(TrainerCallback):
    """Tells the validation score of each epoch as soon as it is known."""

    def __init__(self, tell: Callable[[float], None]) -> None:
        self._tell = tell

    def on_evaluate(self, args: Any, state: Any, control: Any, metrics: dict[str, float], **rest: Any) -> None:
        self._tell(metrics["eval_score"])


def train_trial(
    trial: Mapping[str, Any],
    settings: Mapping[str, Any],
    splits: Mapping[str, Mapping[str, np.ndarray]],
    tell: Callable[[float], None] | None = None,
) -> dict[str, Any]:
    """The trial with its scores, and when it began and ended in seconds since 1970.

    `tell` is called with the validation score of each epoch; it may raise to end the trial.
    """
    began = time.time()
    rows = {name: Rows(arrays) for name, arrays in splits.items()}
    set_seed(trial["seed"])
    model = AdapterBert(copy.deepcopy(encoder()), adapter_size=trial["adapter_size"], num_labels=settings["num_labels"])
    with tempfile.TemporaryDirectory() as unused:
        arguments = training_arguments(
            unused,
            num_rows=len(rows["train"]),
            num_epochs=settings["num_epochs"],
            seed=trial["seed"],
            learning_rate=trial["learning_rate"],
            bf16=True,
            group_by_length=True,
            per_device_eval_batch_size=EVALUATION_BATCH_SIZE,
            eval_strategy="epoch",
            logging_strategy="no",
            logging_nan_inf_filter=False,
            dataloader_pin_memory=False,
        )
        trainer = Trainer(
            model=model,
            args=arguments,
            train_dataset=rows["train"],
            eval_dataset=rows["validation"],
            data_collator=collate,
            compute_metrics=scorer(settings["metric"]),
            callbacks=[TellScore(tell)] if tell is not None else None,
        )
        trainer.train()
        test = trainer.predict(rows["test"]).metrics["test_score"] if "test" in rows else None
    scores = {"validation_score": last_score(trainer.state.log_history), "test_score": test}
    return {**trial, **scores, "began_at": began, "ended_at": time.time()}
