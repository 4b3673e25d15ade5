"""AdamW with clipping, of all trials at once.

Suffixes: K trials, P trained numbers of each.
"""

from __future__ import annotations

import torch
from torch import Tensor


@torch.no_grad()
def adamw_(
    values_KP: Tensor,
    grads_KP: Tensor,
    exp_avg_KP: Tensor,
    exp_avg_sq_KP: Tensor,
    *,
    num_decayed: int,
    rates_K: Tensor,
    decays_K: Tensor,
    max_norms_K: Tensor,
    steps_K: Tensor,
    eps: float = 1e-6,
    betas: tuple[float, float] = (0.9, 0.999),
) -> None:
    """One step of `torch.optim.AdamW` after `clip_grad_norm_`, for each trial with its own numbers; in place, float32.

    Gradients are clipped in place too. One that is not a number stays so, and makes its trial's values so.

    Args:
        num_decayed: how many of a trial's numbers, the first ones, decay.
        rates_K: learning rates of this step.
        decays_K: weight decays.
        max_norms_K: the norms at which each trial's gradient is clipped.
        steps_K: int64, 1 for a trial's first step.
    """
    first, second = betas
    norms_K = torch.linalg.vector_norm(grads_KP, dim=1)
    grads_KP.mul_((max_norms_K / (norms_K + 1e-6)).clamp_max_(1.0)[:, None])
    exp_avg_KP.lerp_(grads_KP, 1 - first)
    exp_avg_sq_KP.mul_(second).addcmul_(grads_KP, grads_KP, value=1 - second)
    # What is one number a trial is worked out in float64, as by torch's optimizer in Python.
    rates_K, steps_K = rates_K.double(), steps_K.double()
    sizes_K = rates_K / (1 - first**steps_K)
    corrections_K = (1 - second**steps_K).sqrt()
    values_KP[:, :num_decayed].mul_((1 - rates_K * decays_K).float()[:, None])
    denominators_KP = exp_avg_sq_KP.sqrt().div_(corrections_K.float()[:, None]).add_(eps)
    values_KP.sub_(denominators_KP.reciprocal_().mul_(exp_avg_KP).mul_(sizes_K.float()[:, None]))
