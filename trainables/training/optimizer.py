"""AdamW of a pack: what of a trial's row is decayed, how gradients are clipped, and the learning rate's course.

Protocol of Houlsby et al. 2019 with the details its released code adds: no decay of biases and LayerNorms, epsilon
1e-6, gradients clipped at a global norm, linear warm-up and linear decay.

Suffixes: K trials, P trained numbers of one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from trainables.config import TrialConfig
from trainables.nn.kernels.adamw import adamw_

EPSILON = 1e-6
_FLOAT32_BYTES = 4


@dataclass(frozen=True, kw_only=True)
class RowLayout:
    """How a trial's row (P + Q,) is divided: what is decayed, what is trained without decay, then its statistics."""

    num_decayed: int
    num_trained: int  # P, of which the decayed numbers come first


@dataclass(frozen=True, kw_only=True, eq=False)
class StepNumbers:
    """What a step of some trials is taken with, on their device."""

    rates_K: Tensor  # float64: learning rates of this step
    decays_K: Tensor  # float64
    max_norms_K: Tensor  # float64
    steps_K: Tensor  # int64, 1 for a trial's first step

    @staticmethod
    def of(trials: Sequence[tuple[TrialConfig, int, int]], device: torch.device) -> StepNumbers:
        """Of configuration, step counted from 0 and number of steps of each."""
        numbers = [
            (learning_rate(config, step, steps), config.weight_decay, config.max_grad_norm)
            for config, step, steps in trials
        ]
        rates_K, decays_K, max_norms_K = torch.tensor(numbers, dtype=torch.float64).T.contiguous().to(device)
        steps_K = torch.tensor([step + 1 for _, step, _ in trials]).to(device)
        return StepNumbers(rates_K=rates_K, decays_K=decays_K, max_norms_K=max_norms_K, steps_K=steps_K)


def bytes_per_trial(num_trained: int, compute_dtype: torch.dtype) -> int:
    """Memory of what a trial trains: float32 masters, gradients and two moments, and the copy products see of them."""
    copy = 0 if compute_dtype is torch.float32 else compute_dtype.itemsize
    return num_trained * (4 * _FLOAT32_BYTES + copy)


def update(
    trained_KP: Tensor,
    grads_KP: Tensor,
    moments: tuple[Tensor, Tensor],
    layout: RowLayout,
    trials: Sequence[tuple[TrialConfig, int, int]] | StepNumbers,
    seen_KP: Tensor | None = None,
) -> None:
    """Take a step with each trial's own rate, decay and clipping; all in place, the gradients clipped.

    Args:
        moments: of first and second order, (K, P) each.
        trials: configuration, step counted from 0 and number of steps of each; or what follows from these.
        seen_KP: a copy in the dtype of products, to be kept up to date.
    """
    numbers = trials if isinstance(trials, StepNumbers) else StepNumbers.of(trials, trained_KP.device)
    adamw_(
        trained_KP,
        grads_KP,
        *moments,
        num_decayed=layout.num_decayed,
        rates_K=numbers.rates_K,
        decays_K=numbers.decays_K,
        max_norms_K=numbers.max_norms_K,
        steps_K=numbers.steps_K,
        eps=EPSILON,
        seen_KP=seen_KP,
    )


def learning_rate(config: TrialConfig, step: int, num_steps: int) -> float:
    """Of a step counted from 0."""
    return config.learning_rate * schedule(step, num_steps, config.warmup_ratio)


def schedule(step: int, num_steps: int, warmup_ratio: float) -> float:
    """The share of the peak learning rate at a step counted from 0: linear warm-up to 1, then linear decay to 0."""
    warmup = int(warmup_ratio * num_steps)
    if step < warmup:
        return step / warmup
    return max(0.0, (num_steps - step) / max(1, num_steps - warmup))
