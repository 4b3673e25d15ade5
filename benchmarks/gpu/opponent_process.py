"""One process that trains with transformers' Trainer: `python -m benchmarks.gpu.opponent_process SETTINGS.json`.

The settings' author knows the Trainer: bf16, batches of similar length, rows in memory and tokenised before, lengths
padded to multiples of 8, no logging, evaluation or checkpoint, no wait for the device at each step to look at the loss.

It runs the phases that its settings name. Each begins when somebody writes its file "begin-"; after a few steps the
process writes "ready-" into its own folder and waits for "go-", so that all processes of a phase are timed together; it
trains for a window of seconds and writes how many rows it trained on. Knows nothing of adaptune.
"""

from __future__ import annotations

import dataclasses
import json
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset
from transformers import Trainer, TrainerCallback, TrainingArguments

from benchmarks.gpu.opponent_models import adapted_bert, lora_bert

WARM_UP_STEPS = 10
POLL_S = 0.005


class Rows(Dataset):
    """Tokenised rows in memory."""

    def __init__(self, path: str) -> None:
        with np.load(path) as arrays:
            ids, offsets = arrays["input_ids"], arrays["offsets"]
            self.rows = [
                {"input_ids": ids[first:last].tolist(), "labels": int(label)}
                for first, last, label in zip(offsets, offsets[1:], arrays["labels"], strict=False)
            ]

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return self.rows[index]


def collate(rows: Sequence[Mapping[str, Any]]) -> dict[str, Tensor]:
    """A batch padded to its longest row, rounded up to a multiple of 8 for the tensor cores."""
    longest = -(-max(len(row["input_ids"]) for row in rows) // 8) * 8
    ids = torch.zeros(len(rows), longest, dtype=torch.int64)
    mask = torch.zeros(len(rows), longest, dtype=torch.int64)
    for place, row in enumerate(rows):
        ids[place, : len(row["input_ids"])] = torch.tensor(row["input_ids"])
        mask[place, : len(row["input_ids"])] = 1
    labels = torch.tensor([row["labels"] for row in rows])
    return {"input_ids": ids, "attention_mask": mask, "labels": labels}


class Window(TrainerCallback):
    """Times the steps from the moment of "go" to the end of the window, then stops the training."""

    def __init__(self, is_told_to_go: Callable[[], bool], seconds: float) -> None:
        self._is_told_to_go, self._seconds = is_told_to_go, seconds
        self._began: float | None = None
        self._first_step = 0
        self.steps: int | None = None
        self.elapsed = 0.0

    def on_step_end(self, args: Any, state: Any, control: Any, **rest: Any) -> None:
        if self._began is None:
            if state.global_step < WARM_UP_STEPS:
                return
            _wait_for_device()
            if not self._is_told_to_go():
                control.should_training_stop = True
                return
            self._began, self._first_step = time.perf_counter(), state.global_step
        elif time.perf_counter() - self._began > self._seconds:
            _wait_for_device()
            self.elapsed = time.perf_counter() - self._began
            self.steps = state.global_step - self._first_step
            control.should_training_stop = True


def arguments(settings: Mapping[str, Any]) -> TrainingArguments:
    """A Trainer's arguments; batches of similar length have had two names."""
    known = {field.name for field in dataclasses.fields(TrainingArguments)}
    grouped = {"train_sampling_strategy": "group_by_length"}
    if "train_sampling_strategy" not in known:
        grouped = {"group_by_length": True}  # type: ignore[dict-item]
    return TrainingArguments(
        output_dir=settings["folder"],
        per_device_train_batch_size=settings["batch_size"],
        learning_rate=1e-3,
        weight_decay=0.01,
        warmup_steps=100,
        lr_scheduler_type="linear",
        max_steps=1_000_000,  # the window ends it
        bf16=settings["bf16"],
        use_cpu=settings["device"] == "cpu",
        logging_strategy="no",
        logging_nan_inf_filter=False,
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        seed=settings["seed"],
        **grouped,
    )


def main(settings: Mapping[str, Any]) -> None:
    """Every phase of this process, one after the other, until one is not begun in time."""
    if settings["device"] == "cpu":
        torch.set_num_threads(1)
    own, shared = Path(settings["folder"]), Path(settings["shared"])
    give_up_at = time.monotonic() + settings["patience_s"]
    rows = Rows(settings["rows"])
    (own / "ready-start").touch()
    for phase in settings["phases"]:
        if not _appears(shared / f"begin-{phase['name']}", give_up_at):
            return
        result = _train(settings, phase, rows, own, shared, give_up_at)
        if result is None:
            return
        beside = own / "result.tmp"
        beside.write_text(json.dumps(result), encoding="utf-8")
        beside.rename(own / f"result-{phase['name']}")


def _train(
    settings: Mapping[str, Any], phase: Mapping[str, Any], rows: Rows, own: Path, shared: Path, give_up_at: float
) -> Mapping[str, float] | None:
    """Rows trained on, and in how many seconds; None where nobody said go."""

    def is_told_to_go() -> bool:
        (own / f"ready-{phase['name']}").touch()
        return _appears(shared / f"go-{phase['name']}", give_up_at)

    window = Window(is_told_to_go, settings["window_s"])
    backbone, num_labels = phase["backbone"], settings["num_labels"]
    if phase["method"] == "lora":
        model = lora_bert(backbone, rank=settings["lora_rank"], alpha=settings["lora_alpha"], num_labels=num_labels)
    else:
        model = adapted_bert(backbone, adapter_size=settings["adapter_size"], num_labels=num_labels)
    trainer = Trainer(
        model=model, args=arguments(settings), train_dataset=rows, data_collator=collate, callbacks=[window]
    )
    trainer.train()
    if window.steps is None:
        return None
    return {"examples": window.steps * settings["batch_size"], "seconds": window.elapsed}


def _appears(path: Path, give_up_at: float) -> bool:
    while not path.exists():
        if time.monotonic() > give_up_at:
            return False
        time.sleep(POLL_S)
    return True


def _wait_for_device() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


if __name__ == "__main__":
    main(json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")))
