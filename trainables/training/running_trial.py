"""A trial in training: where it stands and what it has measured. What it trains is with its pack's weights."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from trainables.config import TrialConfig
from trainables.data import order
from trainables.data.order import epoch_ends, training_batches
from trainables.methods import is_fitted
from trainables.outcome import EpochReport, Report, TrialOutcome, now
from trainables.predictions import Predictions, SplitRows
from trainables.training.model import derive_seed
from trainables.training.start import Start


def rows_a_step(config: TrialConfig, num_rows: int) -> int:
    """How many of a task's training rows a step is made by: a batch, or all where the head is fitted at once."""
    return num_rows if is_fitted(config.method) else config.batch_size


def num_steps(config: TrialConfig, num_rows: int) -> int:
    """The steps of a trial on so many training rows; a fit is a step an epoch."""
    return order.num_steps(num_rows, batch_size=rows_a_step(config, num_rows), num_epochs=config.num_epochs)


@dataclass(frozen=True, kw_only=True, eq=False)
class Job:
    """A trial handed to an engine, and how the engine speaks with whoever handed it in.

    The callbacks run in the engine's thread, between steps, and should return at once.
    """

    config: TrialConfig
    done: Callable[[TrialOutcome], None]  # called once, whatever happened
    report: Report = lambda epoch: True  # after each epoch; False prunes the trial
    # Told before each report, where whoever hears of the epoch may end the trial without another word from the engine:
    # what will have come of it then.
    if_pruned: Callable[[TrialOutcome], None] | None = None
    cancelled: Callable[[], bool] = lambda: False  # asked before every step
    save_to: Path | None = None  # where to keep the trained weights
    keep_predictions: bool = False  # whether its outcome brings what the trained model predicts of each row
    keep_weights: bool = False  # whether it brings what has been trained, as a saved adapter's files
    start: Start | None = None  # what it goes on from; None is the backbone, and the initial values of its seed


class RunningTrial:
    """One trial of a pack: its order of batches, where its epochs end, and its reports.

    `rows_of` tells of a split which rows it has; a trial whose job wants predictions needs it. `class_weights` (C,) are
    those of `trainables.training.loss.class_weights`.
    """

    def __init__(
        self,
        job: Job,
        num_rows: int,
        rows_of: Callable[[str], SplitRows] | None = None,
        class_weights: np.ndarray | None = None,
    ) -> None:
        config = job.config
        self.class_weights = class_weights
        self.job = job
        self.config = config
        self.is_fitted = is_fitted(config.method)  # its head at each step, rather than trained
        self.batch_size = rows_a_step(config, num_rows)
        self.batches = training_batches(
            num_rows,
            batch_size=self.batch_size,
            num_epochs=config.num_epochs,
            seed=derive_seed(config.seed, "data order"),
        )
        self.epoch_ends = epoch_ends(num_rows, batch_size=self.batch_size, num_epochs=config.num_epochs)
        self.dropout_seed = derive_seed(config.seed, "dropout")
        self.step = 0
        self.epochs: list[EpochReport] = []
        self.rows_of = rows_of if job.keep_predictions else None
        self.predictions: dict[str, Predictions] = {}  # of the trained model, by split
        self.started_at = now()
        self.clock = self.epoch_clock = time.perf_counter()
        self.l2: float | None = None  # the strength of the penalty that a fitted head came out with
        self.training_s = 0.0
        self.steps_shared = 0  # sum over steps of the trials that took them together
        self.peak_bytes: int | None = None

    @property
    def has_ended_epoch(self) -> bool:
        """Whether the step just taken was an epoch's last; with fewer steps than epochs, one ends several."""
        return len(self.epochs) < len(self.epoch_ends) and self.step >= self.epoch_ends[len(self.epochs)]

    def keeps(self, split: str) -> bool:
        """Whether what it predicts of this split now is to be kept: of validation, not before its last epoch."""
        is_last = split != "validation" or len(self.epochs) == len(self.epoch_ends) - 1
        return self.rows_of is not None and is_last

    @property
    def steps_in_epoch(self) -> int:
        """Steps taken since the last epoch that was reported."""
        return self.step - (self.epochs[-1].step if self.epochs else 0)

    @property
    def examples_per_second(self) -> float | None:
        """Of training alone, as it went, pack-mates and all."""
        return self.step * self.batch_size / self.training_s if self.training_s > 0 else None

    @property
    def pack_size(self) -> float | None:
        """Trials it took its steps with on average, itself included."""
        return self.steps_shared / self.step if self.step else None
