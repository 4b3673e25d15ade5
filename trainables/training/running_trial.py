"""A trial in training: where it stands, what it has measured, and the optimizer of its own."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from trainables.config import TrialConfig
from trainables.data.tokenized import epoch_ends, training_batches
from trainables.nn.dropout import DropoutStream
from trainables.outcome import EpochReport, Report, TrialOutcome, now
from trainables.training.model import derive_seed


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
        self._optimizer: torch.optim.AdamW | None = None

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

    def attach(self, row: Tensor, num_decayed: int, statistics: Tensor | None = None) -> None:
        """Train this row of the pack's masters (P,) from now on; the optimizer keeps its moments, on the row's device.

        `statistics` (Q,) are those of its normalisations, which the model writes.
        """
        self._statistics = row.new_empty(0) if statistics is None else statistics
        parts = (row[:num_decayed], row[num_decayed:])
        if self._optimizer is None:
            self._parameters = [nn.Parameter(part) for part in parts]
            decays = (self.config.weight_decay, 0.0)
            self._optimizer = torch.optim.AdamW(
                [{"params": [p], "weight_decay": decay} for p, decay in zip(self._parameters, decays, strict=True)],
                lr=self.config.learning_rate,
                eps=1e-6,
                fused=True,
            )
            return
        for parameter, part in zip(self._parameters, parts, strict=True):
            parameter.data = part
            for name, moment in self._optimizer.state[parameter].items():
                self._optimizer.state[parameter][name] = moment.to(row.device)

    @property
    def row(self) -> Tensor:
        """The values of what it trains, decayed ones first, and its statistics: float32 (P + Q,)."""
        return torch.cat([*(parameter.detach() for parameter in self._parameters), self._statistics])

    def update(self, grads: Tensor) -> None:
        """Take one step of AdamW at the schedule's rate with gradients (P,), clipped at the trial's global norm."""
        assert self._optimizer is not None
        rate = self.config.learning_rate * schedule(self.step, len(self.batches), self.config.warmup_ratio)
        norm = torch.linalg.vector_norm(grads)
        grads.mul_((self.config.max_grad_norm / (norm + 1e-6)).clamp_max(1.0))
        split = self._parameters[0].numel()
        for group, parameter, part in zip(
            self._optimizer.param_groups, self._parameters, (grads[:split], grads[split:]), strict=True
        ):
            group["lr"] = rate
            parameter.grad = part
        self._optimizer.step()
        for parameter in self._parameters:
            parameter.grad = None


def schedule(step: int, num_steps: int, warmup_ratio: float) -> float:
    """The share of the peak learning rate at a step counted from 0: linear warm-up to 1, then linear decay to 0."""
    warmup = int(warmup_ratio * num_steps)
    if step < warmup:
        return step / warmup
    return max(0.0, (num_steps - step) / max(1, num_steps - warmup))
