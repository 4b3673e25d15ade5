"""Norms, clipping, AdamW and the copy that products see, of all trials in two launches.

Suffixes: K trials, P trained numbers of each.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

_BLOCK = 2048  # numbers a program works on at once: sixteen for each thread of four warps
_MOST_PARTS = 1024  # sums of squares of a trial, which every program of the second launch adds up


def can_update(*tensors_KP: Tensor) -> bool:
    """Whether these values, gradients and moments are float32 and each trial's numbers lie side by side."""
    return all(tensor.dtype is torch.float32 and tensor.stride(1) == 1 for tensor in tensors_KP)


def adamw_(
    values_KP: Tensor,
    grads_KP: Tensor,
    exp_avg_KP: Tensor,
    exp_avg_sq_KP: Tensor,
    seen_KP: Tensor | None,
    *,
    num_decayed: int,
    rates_K: Tensor,
    decays_K: Tensor,
    max_norms_K: Tensor,
    steps_K: Tensor,
    eps: float,
    betas: tuple[float, float],
) -> None:
    """What `kernels.adamw.adamw_` does; rows may lie apart, and of any distance."""
    num_trials, size = values_KP.shape
    if not values_KP.numel():
        return
    # How a trial's squares are divided depends on P alone, and so does the order in which they are added up.
    blocks = triton.cdiv(size, _BLOCK)
    per_part = triton.cdiv(blocks, _MOST_PARTS)
    parts = triton.cdiv(blocks, per_part)
    squares_KR = values_KP.new_empty(num_trials, parts)
    _sum_squares[(parts, num_trials)](grads_KP, grads_KP.stride(0), squares_KR, size, per_part * _BLOCK, BLOCK=_BLOCK)
    _update[(blocks, num_trials)](
        values_KP,
        values_KP.stride(0),
        grads_KP,
        grads_KP.stride(0),
        exp_avg_KP,
        exp_avg_KP.stride(0),
        exp_avg_sq_KP,
        exp_avg_sq_KP.stride(0),
        seen_KP,
        0 if seen_KP is None else seen_KP.stride(0),
        squares_KR,
        parts,
        rates_K,
        decays_K,
        max_norms_K,
        steps_K,
        num_decayed,
        size,
        EPS=eps,
        FIRST=betas[0],
        SECOND=betas[1],
        COPIES=seen_KP is not None,
        PARTS=triton.next_power_of_2(parts),
        BLOCK=_BLOCK,
    )


@triton.jit(do_not_specialize=["step", "size", "share"], do_not_specialize_on_alignment=["grads"])
def _sum_squares(grads, step, squares, size, share, BLOCK: tl.constexpr):
    """A program adds up the squares of `share` gradients of a trial."""
    trial = tl.program_id(1).to(tl.int64)
    first = tl.program_id(0) * share
    sums = tl.zeros((BLOCK,), tl.float32)
    for done in range(0, share, BLOCK):
        at = first + done + tl.arange(0, BLOCK)
        grad = tl.load(grads + trial * step + at, mask=at < size, other=0.0)
        sums += grad * grad
    tl.store(squares + trial * tl.num_programs(0) + tl.program_id(0), tl.sum(sums, axis=0))


@triton.jit(
    do_not_specialize=[
        "values_step",
        "grads_step",
        "exp_avg_step",
        "exp_avg_sq_step",
        "seen_step",
        "parts",
        "num_decayed",
        "size",
    ],
    do_not_specialize_on_alignment=[
        "values",
        "grads",
        "exp_avg",
        "exp_avg_sq",
        "seen",
        "rates",
        "decays",
        "max_norms",
        "steps",
    ],
)
def _update(
    values,
    values_step,
    grads,
    grads_step,
    exp_avg,
    exp_avg_step,
    exp_avg_sq,
    exp_avg_sq_step,
    seen,
    seen_step,
    squares,
    parts,
    rates,
    decays,
    max_norms,
    steps,
    num_decayed,
    size,
    EPS: tl.constexpr,
    FIRST: tl.constexpr,
    SECOND: tl.constexpr,
    COPIES: tl.constexpr,
    PARTS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """A program moves BLOCK numbers of a trial."""
    trial = tl.program_id(1).to(tl.int64)
    part = tl.arange(0, PARTS)
    norm = tl.sqrt_rn(tl.sum(tl.load(squares + trial * parts + part, mask=part < parts, other=0.0), axis=0))
    # What is one number a trial is worked out in float64, as by torch's optimizer in Python.
    limit = tl.load(max_norms + trial).to(tl.float64)
    factor = limit / (norm + 1e-6).to(tl.float64)
    factor = tl.where(factor > 1.0, 1.0, factor).to(tl.float32)  # what is not a number stays so
    rate = tl.load(rates + trial).to(tl.float64)
    decay = tl.load(decays + trial).to(tl.float64)
    taken = tl.load(steps + trial).to(tl.float64)
    first = tl.full((), FIRST, tl.float64)
    second = tl.full((), SECOND, tl.float64)
    rate_now = (rate / (1.0 - tl.exp(taken * tl.log(first)))).to(tl.float32)
    correction = tl.sqrt(1.0 - tl.exp(taken * tl.log(second))).to(tl.float32)
    shrunk = (1.0 - rate * decay).to(tl.float32)

    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = at < size
    grads_at = grads + trial * grads_step + at
    grad = tl.load(grads_at, mask=inside, other=0.0) * factor
    tl.store(grads_at, grad, mask=inside)
    exp_avg_at = exp_avg + trial * exp_avg_step + at
    average = tl.load(exp_avg_at, mask=inside, other=0.0)
    average += (grad - average) * (1.0 - FIRST)
    tl.store(exp_avg_at, average, mask=inside)
    exp_avg_sq_at = exp_avg_sq + trial * exp_avg_sq_step + at
    average_sq = tl.load(exp_avg_sq_at, mask=inside, other=0.0) * SECOND + grad * grad * (1.0 - SECOND)
    tl.store(exp_avg_sq_at, average_sq, mask=inside)
    values_at = values + trial * values_step + at
    value = tl.load(values_at, mask=inside, other=0.0)
    value = tl.where(at < num_decayed, value * shrunk, value)
    denominator = tl.div_rn(tl.sqrt_rn(average_sq), correction) + EPS
    value -= tl.div_rn(average, denominator) * rate_now
    tl.store(values_at, value, mask=inside)
    if COPIES:
        tl.store(seen + trial * seen_step + at, value.to(seen.dtype.element_ty), mask=inside)
