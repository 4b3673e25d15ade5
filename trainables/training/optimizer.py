"""AdamW of one trial over its row of numbers: what is decayed, how gradients are clipped, the learning rate's course.

Protocol of Houlsby et al. 2019 with the details its released code adds: no decay of biases and LayerNorms, epsilon
1e-6, gradients clipped at a global norm, linear warm-up and linear decay.

Suffixes: P trained numbers of a trial, Q numbers of its statistics.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from trainables.config import TrialConfig

EPSILON = 1e-6
_FLOAT32_BYTES = 4


@dataclass(frozen=True, kw_only=True)
class RowLayout:
    """How a trial's row (P + Q,) is divided: what is decayed, what is trained without decay, then its statistics."""

    num_decayed: int
    num_trained: int  # P, of which the decayed numbers come first

    def parts(self, trained: Tensor) -> tuple[Tensor, Tensor]:
        """The decayed numbers of P trained ones, and the rest; views."""
        return trained[..., : self.num_decayed], trained[..., self.num_decayed : self.num_trained]


def bytes_per_trial(num_trained: int, compute_dtype: torch.dtype) -> int:
    """Memory of what a trial trains: float32 masters, gradients and two moments, and the copy products see of them."""
    copy = 0 if compute_dtype is torch.float32 else compute_dtype.itemsize
    return num_trained * (4 * _FLOAT32_BYTES + copy)


class TrialOptimizer:
    """AdamW with the schedule and the clipping of one trial.

    Args:
        config: rates and norms.
        num_steps: T, the steps of the whole trial, over which the learning rate runs its course.
    """

    def __init__(self, config: TrialConfig, num_steps: int) -> None:
        self._config = config
        self._num_steps = num_steps
        self._layout = RowLayout(num_decayed=0, num_trained=0)
        self._parameters: list[nn.Parameter] = []
        self._adamw: torch.optim.AdamW | None = None

    @property
    def values(self) -> Tensor:
        """What is trained (P,), decayed numbers first."""
        return torch.cat([parameter.detach() for parameter in self._parameters])

    def attach(self, trained: Tensor, layout: RowLayout) -> None:
        """Move these numbers (P,) from now on; moments are kept, on the numbers' device."""
        self._layout = layout
        parts = layout.parts(trained)
        if self._adamw is None:
            self._parameters = [nn.Parameter(part) for part in parts]
            decays = (self._config.weight_decay, 0.0)
            self._adamw = torch.optim.AdamW(
                [{"params": [p], "weight_decay": decay} for p, decay in zip(self._parameters, decays, strict=True)],
                lr=self._config.learning_rate,
                eps=EPSILON,
                fused=True,
            )
            return
        for parameter, part in zip(self._parameters, parts, strict=True):
            parameter.data = part
            for name, moment in self._adamw.state[parameter].items():
                self._adamw.state[parameter][name] = moment.to(trained.device)

    def update(self, grads: Tensor, step: int) -> None:
        """Take a step, counted from 0, with gradients (P,), which are clipped in place at the trial's global norm."""
        assert self._adamw is not None
        rate = self._config.learning_rate * schedule(step, self._num_steps, self._config.warmup_ratio)
        norm = torch.linalg.vector_norm(grads)
        grads.mul_((self._config.max_grad_norm / (norm + 1e-6)).clamp_max(1.0))
        parts = self._layout.parts(grads)
        for group, parameter, part in zip(self._adamw.param_groups, self._parameters, parts, strict=True):
            group["lr"] = rate
            parameter.grad = part
        self._adamw.step()
        for parameter in self._parameters:
            parameter.grad = None


def schedule(step: int, num_steps: int, warmup_ratio: float) -> float:
    """The share of the peak learning rate at a step counted from 0: linear warm-up to 1, then linear decay to 0."""
    warmup = int(warmup_ratio * num_steps)
    if step < warmup:
        return step / warmup
    return max(0.0, (num_steps - step) / max(1, num_steps - warmup))
