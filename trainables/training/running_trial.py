"""A trial in training: where it stands, what it has measured, and its own optimizer."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from trainables.config import TrialConfig
from trainables.data.order import epoch_ends, training_batches
from trainables.nn.dropout import DropoutStream
from trainables.outcome import EpochReport, Report, TrialOutcome, now
from trainables.training.model import derive_seed
from trainables.training.optimizer import RowLayout, TrialOptimizer


@dataclass(frozen=True, kw_only=True, eq=False)
class Job:
    """A trial handed to an engine, and how the engine speaks with whoever handed it in.

    The callbacks run in the engine's thread, between steps, and should return at once.
    """

    config: TrialConfig
    done: Callable[[TrialOutcome], None]  # called once, whatever happened
    report: Report = lambda epoch: True  # after each epoch; False prunes the trial
    cancelled: Callable[[], bool] = lambda: False  # asked before every step
    save_to: Path | None = None  # where to keep the trained weights


class RunningTrial:
    """One trial of a pack: its order of batches, its schedule, its AdamW and its reports."""

    def __init__(self, job: Job, train_lengths: np.ndarray, device: torch.device) -> None:
        config = job.config
        self.job = job
        self.config = config
        self.batches = training_batches(
            train_lengths,
            batch_size=config.batch_size,
            num_epochs=config.num_epochs,
            seed=derive_seed(config.seed, "data order"),
        )
        self.epoch_ends = epoch_ends(len(train_lengths), batch_size=config.batch_size, num_epochs=config.num_epochs)
        self.dropout = DropoutStream(derive_seed(config.seed, "dropout"), config.dropout, device)
        self.step = 0
        self.epochs: list[EpochReport] = []
        self.loss_sum = torch.zeros((), device=device)  # over the steps of this epoch
        self.started_at = now()
        self.clock = self.epoch_clock = time.perf_counter()
        self.training_s = 0.0
        self.steps_shared = 0  # sum over steps of the trials that took them together
        self.peak_bytes: int | None = None
        self._optimizer = TrialOptimizer(config, len(self.batches))
        self._statistics = torch.empty(0, device=device)

    @property
    def has_ended_epoch(self) -> bool:
        """Whether the step just taken was an epoch's last; with fewer steps than epochs, one ends several."""
        return len(self.epochs) < len(self.epoch_ends) and self.step >= self.epoch_ends[len(self.epochs)]

    @property
    def steps_in_epoch(self) -> int:
        """Steps taken since the last epoch that was reported."""
        return self.step - (self.epochs[-1].step if self.epochs else 0)

    @property
    def examples_per_second(self) -> float | None:
        """Of training alone, as it went, pack-mates and all."""
        return self.step * self.config.batch_size / self.training_s if self.training_s > 0 else None

    @property
    def pack_size(self) -> float | None:
        """Trials it took its steps with on average, itself included."""
        return self.steps_shared / self.step if self.step else None

    def attach(self, trained: Tensor, layout: RowLayout, statistics: Tensor | None = None) -> None:
        """Train these numbers of the pack's masters (P,) from now on; the optimizer keeps its moments, on their device.

        `statistics` (Q,) are those of its normalisations, which the model writes.
        """
        self._statistics = trained.new_empty(0) if statistics is None else statistics
        self._optimizer.attach(trained, layout)

    @property
    def row(self) -> Tensor:
        """The values of what it trains, decayed ones first, and its statistics: float32 (P + Q,)."""
        return torch.cat([self._optimizer.values, self._statistics])

    def update(self, grads: Tensor) -> None:
        """Take one step of AdamW with gradients (P,)."""
        self._optimizer.update(grads, self.step)
