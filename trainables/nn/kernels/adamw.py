"""AdamW with clipping, of all trials at once.

Suffixes: K trials, P trained numbers of each.
"""

from __future__ import annotations

import torch
from torch import Tensor

from trainables.nn.kernels import native, triton


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
    seen_KP: Tensor | None = None,
) -> None:
    """One step of `torch.optim.AdamW` after `clip_grad_norm_`, for each trial with its own numbers; in place, float32.

    Gradients are clipped in place too. One that is not a number stays so, and makes its trial's values so.

    Args:
        num_decayed: how many of a trial's numbers, the first ones, decay.
        rates_K: learning rates of this step.
        decays_K: weight decays.
        max_norms_K: the norms at which each trial's gradient is clipped.
        steps_K: int64, 1 for a trial's first step.
        seen_KP: a copy of the values that products see, of bf16 or any other dtype, to be kept up to date.
    """
    tensors = values_KP, grads_KP, exp_avg_KP, exp_avg_sq_KP
    if triton.serves(values_KP):
        from trainables.nn.kernels.triton import adamw as in_triton

        if in_triton.can_update(*tensors) and (seen_KP is None or seen_KP.stride(1) == 1):
            in_triton.adamw_(
                *tensors,
                seen_KP,
                num_decayed=num_decayed,
                rates_K=rates_K,
                decays_K=decays_K,
                max_norms_K=max_norms_K,
                steps_K=steps_K,
                eps=eps,
                betas=betas,
            )
            return
    library = native.library_for(values_KP)
    if library is not None and all(tensor.dtype is torch.float32 and tensor.is_contiguous() for tensor in tensors):
        is_seen_bf16 = seen_KP is not None and seen_KP.dtype is torch.bfloat16 and seen_KP.is_contiguous()
        numbers = rates_K.double(), decays_K.double(), max_norms_K.double(), steps_K.long()
        library.adamw(
            *values_KP.shape,
            num_decayed,
            *native.addresses(*tensors, seen_KP if is_seen_bf16 else None, *numbers),
            eps,
            *betas,
        )
        if seen_KP is not None and not is_seen_bf16:
            seen_KP.copy_(values_KP)
        return
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
    if seen_KP is not None:
        seen_KP.copy_(values_KP)
