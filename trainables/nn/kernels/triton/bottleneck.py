"""Bottlenecks of K trials: one launch forwards, three backwards, whatever K is.

Backwards the second launch has a program for each trial, some columns and a section of the trial's rows, and the third
adds the sections up. Sections begin at the same rows in every pack, so gradients of weights are added up in one order,
which depends on nothing but the trial.

Suffixes: K trials, N = K*M rows, D width, A size of the bottleneck, C sections of a trial's rows, W the numbers of one
trial's bottleneck.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

import torch
import torch.nn.functional as F
import triton
import triton.language as tl
from torch import Tensor

_ROWS, _CHUNK = 32, 64  # rows of a program, and columns it works on at once
_SECTION = 512  # rows of a trial over which one program adds up gradients of weights
_SUMS = 1024  # gradients that a program adds up over the sections
_LARGEST = 128  # sizes up to here leave a program enough registers
_ERF_GELU, _TANH_GELU, _RELU = 0, 1, 2


def can_compute(
    rows_ND: Tensor, weights: tuple[Tensor, Tensor, Tensor, Tensor], activation: Callable[[Tensor], Tensor]
) -> bool:
    """Whether there are kernels for such a bottleneck."""
    is_small = weights[0].shape[2] <= _LARGEST
    return is_small and _number(activation) is not None and all(weight.dtype is rows_ND.dtype for weight in weights)


def _number(activation: Callable[[Tensor], Tensor]) -> int | None:
    """By which the kernels know an activation; None for one that they do not know."""
    if isinstance(activation, functools.partial):
        is_tanh_gelu = activation.func is F.gelu and activation.keywords == {"approximate": "tanh"}
        return _TANH_GELU if is_tanh_gelu else None
    return {F.gelu: _ERF_GELU, F.relu: _RELU}.get(activation)


def forward(
    hidden_ND: Tensor,
    read_ND: Tensor,
    weights: tuple[Tensor, Tensor, Tensor, Tensor],
    scale: float,
    activation: Callable[[Tensor], Tensor],
) -> tuple[Tensor, Tensor]:
    """What `kernels.bottleneck.add_bottleneck` computes, and the bottleneck before its activation (N, A)."""
    weights = _in_rows(weights)
    num_trials, width, size = weights[0].shape
    num_rows = len(read_ND)
    out_ND, before_NA = torch.empty_like(hidden_ND), read_ND.new_empty(num_rows, size)
    blocks = triton.cdiv(num_rows // num_trials, _ROWS)
    if num_rows:
        _forward[(num_trials * blocks,)](
            hidden_ND,
            read_ND,
            *_with_steps(weights),
            out_ND,
            before_NA,
            float(scale),
            num_rows // num_trials,
            blocks,
            **_constants(width, size, activation),
        )
    return out_ND, before_NA


def backward(
    grad_ND: Tensor,
    read_ND: Tensor,
    before_NA: Tensor,
    weights: tuple[Tensor, Tensor, Tensor, Tensor],
    scale: float,
    activation: Callable[[Tensor], Tensor],
    *,
    adds: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """The gradients of what is read, with `adds` plus that of the result, and of the weights."""
    down_KDA, _, up_KAD, _ = weights = _in_rows(weights)
    num_trials, width, size = down_KDA.shape
    num_rows = len(read_ND)
    per_trial = num_rows // num_trials
    blocks = triton.cdiv(per_trial, _ROWS)
    grad_read_ND, after_NA, grad_before_NA = (torch.empty_like(rows) for rows in (read_ND, before_NA, before_NA))
    constants = _constants(width, size, activation)
    if num_rows:
        _backward_rows[(num_trials * blocks,)](
            grad_ND,
            before_NA,
            down_KDA,
            down_KDA.stride(0),
            up_KAD,
            up_KAD.stride(0),
            grad_read_ND,
            after_NA,
            grad_before_NA,
            float(scale),
            per_trial,
            blocks,
            ADDS=adds,
            **constants,
        )
    del constants["ACTIVATION"]
    grads = [torch.empty(weight.shape, dtype=weight.dtype, device=weight.device) for weight in weights]
    numel, sections = sum(grad[0].numel() for grad in grads), triton.cdiv(per_trial, _SECTION)
    sums_KCW = torch.empty(num_trials, sections, numel, dtype=torch.float32, device=grad_ND.device)
    if sections:
        _sum_sections[(triton.cdiv(width, _CHUNK), sections, num_trials)](
            grad_ND, read_ND, after_NA, grad_before_NA, sums_KCW, per_trial, SECTION=_SECTION, **constants
        )
    _sum_trials[(triton.cdiv(numel, _SUMS), num_trials)](
        sums_KCW, *grads, float(scale), sections, WIDTH=width, SIZE=size, SUMS=_SUMS
    )
    return grad_read_ND, grads[0], grads[1], grads[2], grads[3]


def _constants(width: int, size: int, activation: Callable[[Tensor], Tensor]) -> dict[str, int | None]:
    padded = max(16, triton.next_power_of_2(size))  # products of tensor cores have no smaller side
    return {
        "WIDTH": width,
        "SIZE": size,
        "PADDED": padded,
        "ACTIVATION": _number(activation),
        "ROWS": _ROWS,
        "CHUNK": _CHUNK,
        "num_warps": 4 if padded <= 64 else 8,
        "num_stages": 2,
    }


def _in_rows(weights: tuple[Tensor, Tensor, Tensor, Tensor]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Each trial's numbers side by side; the trials may lie apart, as a pack's weights do."""
    down, down_bias, up, up_bias = (w if w[0].is_contiguous() else w.contiguous() for w in weights)
    return down, down_bias, up, up_bias


def _with_steps(weights: tuple[Tensor, ...]) -> list[Tensor | int]:
    """Each one, and how far it is from one trial's to the next one's."""
    return [each for weight in weights for each in (weight, weight.stride(0))]


@triton.jit
def _activate(before, ACTIVATION: tl.constexpr):
    if ACTIVATION == 0:
        return before * _normal_below(before)
    elif ACTIVATION == 1:
        return before * _nearly_normal_below(before)
    else:
        return tl.where(before < 0.0, 0.0, before)  # what is not a number stays so


@triton.jit
def _slope(before, ACTIVATION: tl.constexpr):
    """The derivative of the activation."""
    if ACTIVATION == 0:
        return _normal_below(before) + before * tl.exp(before * before * -0.5) * 0.3989422804014327
    elif ACTIVATION == 1:
        below = _nearly_normal_below(before)
        steepness = 1.5957691216057308 * (1.0 + 0.134145 * before * before)
        return below + before * below * (1.0 - below) * steepness
    else:
        return tl.where(before > 0.0, 1.0, 0.0)


@triton.jit
def _normal_below(number):
    """The standard normal distribution function."""
    return 0.5 * (1.0 + tl.erf(number * 0.7071067811865476))


@triton.jit
def _nearly_normal_below(number):
    """The same as GELU's approximation by tanh has it: (1 + tanh(u)) / 2 = 1 / (1 + exp(-2 u))."""
    doubled = 1.5957691216057308 * number * (1.0 + 0.044715 * number * number)
    return 1.0 / (1.0 + tl.exp(-doubled))


@triton.jit(
    do_not_specialize=[
        "down_step",
        "down_bias_step",
        "up_step",
        "up_bias_step",
        "per_trial",
        "blocks",
    ],
    do_not_specialize_on_alignment=["down", "down_bias", "up", "up_bias"],
)
def _forward(
    hidden,
    read,
    down,
    down_step,
    down_bias,
    down_bias_step,
    up,
    up_step,
    up_bias,
    up_bias_step,
    out,
    before_out,
    scale,
    per_trial,
    blocks,
    WIDTH: tl.constexpr,
    SIZE: tl.constexpr,
    PADDED: tl.constexpr,
    ACTIVATION: tl.constexpr,
    ROWS: tl.constexpr,
    CHUNK: tl.constexpr,
):
    """A program has ROWS whole rows of one trial."""
    trial = (tl.program_id(0) // blocks).to(tl.int64)
    within = tl.program_id(0) % blocks * ROWS + tl.arange(0, ROWS)
    is_row = (within < per_trial)[:, None]
    row = (trial * per_trial + within)[:, None]
    unit = tl.arange(0, PADDED)
    is_unit = unit < SIZE
    dtype = out.dtype.element_ty
    product = tl.zeros((ROWS, PADDED), tl.float32)
    for first in range(0, WIDTH, CHUNK):
        column = first + tl.arange(0, CHUNK)
        is_column = column < WIDTH
        rows = tl.load(read + row * WIDTH + column[None, :], mask=is_row & is_column[None, :], other=0.0)
        weight = tl.load(
            down + trial * down_step + column[:, None] * SIZE + unit[None, :],
            mask=is_column[:, None] & is_unit[None, :],
            other=0.0,
        )
        product = tl.dot(rows, weight, product, input_precision="ieee")
    bias = tl.load(down_bias + trial * down_bias_step + unit, mask=is_unit, other=0.0).to(tl.float32)
    before = (product + bias[None, :]).to(dtype)
    tl.store(before_out + row * SIZE + unit[None, :], before, mask=is_row & is_unit[None, :])
    after = _activate(before.to(tl.float32), ACTIVATION).to(dtype)
    for first in range(0, WIDTH, CHUNK):
        column = first + tl.arange(0, CHUNK)
        is_column = column < WIDTH
        weight = tl.load(
            up + trial * up_step + unit[:, None] * WIDTH + column[None, :],
            mask=is_unit[:, None] & is_column[None, :],
            other=0.0,
        )
        shift = tl.load(up_bias + trial * up_bias_step + column, mask=is_column, other=0.0).to(tl.float32)
        change = tl.dot(after, weight, input_precision="ieee") + shift[None, :]
        change = (change.to(dtype).to(tl.float32) * scale).to(dtype)
        at = row * WIDTH + column[None, :]
        inside = is_row & is_column[None, :]
        base = tl.load(hidden + at, mask=inside, other=0.0).to(tl.float32)
        tl.store(out + at, (base + change.to(tl.float32)).to(dtype), mask=inside)


@triton.jit(
    do_not_specialize=["down_step", "up_step", "per_trial", "blocks"],
    do_not_specialize_on_alignment=["down", "up"],
)
def _backward_rows(
    grad,
    before_in,
    down,
    down_step,
    up,
    up_step,
    grad_read,
    after,
    grad_before,
    scale,
    per_trial,
    blocks,
    ADDS: tl.constexpr,
    WIDTH: tl.constexpr,
    SIZE: tl.constexpr,
    PADDED: tl.constexpr,
    ACTIVATION: tl.constexpr,
    ROWS: tl.constexpr,
    CHUNK: tl.constexpr,
):
    """A program has ROWS whole rows of one trial."""
    trial = (tl.program_id(0) // blocks).to(tl.int64)
    within = tl.program_id(0) % blocks * ROWS + tl.arange(0, ROWS)
    is_row = (within < per_trial)[:, None]
    row = (trial * per_trial + within)[:, None]
    unit = tl.arange(0, PADDED)
    is_unit = unit < SIZE
    dtype = grad.dtype.element_ty
    product = tl.zeros((ROWS, PADDED), tl.float32)
    for first in range(0, WIDTH, CHUNK):
        column = first + tl.arange(0, CHUNK)
        is_column = column < WIDTH
        rows = tl.load(grad + row * WIDTH + column[None, :], mask=is_row & is_column[None, :], other=0.0)
        weight = tl.load(
            up + trial * up_step + unit[None, :] * WIDTH + column[:, None],
            mask=is_column[:, None] & is_unit[None, :],
            other=0.0,
        )
        product = tl.dot(rows, weight, product, input_precision="ieee")
    at_units = row * SIZE + unit[None, :]
    is_inner = is_row & is_unit[None, :]
    before = tl.load(before_in + at_units, mask=is_inner, other=0.0).to(tl.float32)
    behind = (product * scale).to(dtype).to(tl.float32)
    inner = (behind * _slope(before, ACTIVATION)).to(dtype)
    tl.store(grad_before + at_units, inner, mask=is_inner)
    tl.store(after + at_units, _activate(before, ACTIVATION).to(dtype), mask=is_inner)
    for first in range(0, WIDTH, CHUNK):
        column = first + tl.arange(0, CHUNK)
        is_column = column < WIDTH
        weight = tl.load(
            down + trial * down_step + column[None, :] * SIZE + unit[:, None],
            mask=is_unit[:, None] & is_column[None, :],
            other=0.0,
        )
        gradient = tl.dot(inner, weight, input_precision="ieee")
        at = row * WIDTH + column[None, :]
        inside = is_row & is_column[None, :]
        if ADDS:
            upstream = tl.load(grad + at, mask=inside, other=0.0).to(tl.float32)
            gradient = upstream + gradient.to(dtype).to(tl.float32)
        tl.store(grad_read + at, gradient.to(dtype), mask=inside)


@triton.jit(do_not_specialize=["per_trial"])
def _sum_sections(
    grad,
    read,
    after_in,
    grad_before,
    sums,
    per_trial,
    WIDTH: tl.constexpr,
    SIZE: tl.constexpr,
    PADDED: tl.constexpr,
    ROWS: tl.constexpr,
    CHUNK: tl.constexpr,
    SECTION: tl.constexpr,
):
    """A program has CHUNK columns of one trial's weights, and a section of its rows."""
    section = tl.program_id(1)
    trial = tl.program_id(2).to(tl.int64)
    column = tl.program_id(0) * CHUNK + tl.arange(0, CHUNK)
    is_column = column < WIDTH
    unit = tl.arange(0, PADDED)
    is_unit = unit < SIZE
    down_sums = tl.zeros((CHUNK, PADDED), tl.float32)
    up_sums = tl.zeros((PADDED, CHUNK), tl.float32)
    down_bias_sums = tl.zeros((PADDED,), tl.float32)
    up_bias_sums = tl.zeros((CHUNK,), tl.float32)
    for first in range(section * SECTION, tl.minimum(per_trial, (section + 1) * SECTION), ROWS):
        within = first + tl.arange(0, ROWS)
        is_row = (within < per_trial)[:, None]
        row = (trial * per_trial + within)[:, None]
        at = row * WIDTH + column[None, :]
        inside = is_row & is_column[None, :]
        at_units = row * SIZE + unit[None, :]
        is_inner = is_row & is_unit[None, :]
        upstream = tl.load(grad + at, mask=inside, other=0.0)
        rows = tl.load(read + at, mask=inside, other=0.0)
        after = tl.load(after_in + at_units, mask=is_inner, other=0.0)
        inner = tl.load(grad_before + at_units, mask=is_inner, other=0.0)
        up_sums = tl.dot(tl.trans(after), upstream, up_sums, input_precision="ieee")
        down_sums = tl.dot(tl.trans(rows), inner, down_sums, input_precision="ieee")
        up_bias_sums += tl.sum(upstream.to(tl.float32), axis=0)
        down_bias_sums += tl.sum(inner.to(tl.float32), axis=0)
    of_section = sums + (trial * tl.num_programs(1) + section) * (2 * WIDTH * SIZE + SIZE + WIDTH)
    tl.store(of_section + column[:, None] * SIZE + unit[None, :], down_sums, mask=is_column[:, None] & is_unit[None, :])
    if tl.program_id(0) == 0:
        tl.store(of_section + WIDTH * SIZE + unit, down_bias_sums, mask=is_unit)
    of_up = of_section + WIDTH * SIZE + SIZE
    tl.store(of_up + unit[:, None] * WIDTH + column[None, :], up_sums, mask=is_unit[:, None] & is_column[None, :])
    tl.store(of_up + WIDTH * SIZE + column, up_bias_sums, mask=is_column)


@triton.jit(do_not_specialize=["sections"])
def _sum_trials(
    sums,
    grad_down,
    grad_down_bias,
    grad_up,
    grad_up_bias,
    scale,
    sections,
    WIDTH: tl.constexpr,
    SIZE: tl.constexpr,
    SUMS: tl.constexpr,
):
    """A program has SUMS gradients of one trial's numbers, the sections' sums of which it adds up."""
    trial = tl.program_id(1).to(tl.int64)
    number = tl.program_id(0) * SUMS + tl.arange(0, SUMS)
    MATRIX: tl.constexpr = WIDTH * SIZE
    NUMBERS: tl.constexpr = 2 * MATRIX + SIZE + WIDTH
    total = tl.zeros((SUMS,), tl.float32)
    for section in range(0, sections):
        total += tl.load(sums + (trial * sections + section) * NUMBERS + number, mask=number < NUMBERS, other=0.0)
    is_down = number < MATRIX
    tl.store(grad_down + trial * MATRIX + number, total.to(grad_down.dtype.element_ty), mask=is_down)
    of_bias = number - MATRIX
    is_down_bias = (of_bias >= 0) & (of_bias < SIZE)
    tl.store(grad_down_bias + trial * SIZE + of_bias, total.to(grad_down.dtype.element_ty), mask=is_down_bias)
    scaled = (total * scale).to(grad_up.dtype.element_ty)
    of_up = of_bias - SIZE
    tl.store(grad_up + trial * MATRIX + of_up, scaled, mask=(of_up >= 0) & (of_up < MATRIX))
    of_up_bias = of_up - MATRIX
    tl.store(grad_up_bias + trial * WIDTH + of_up_bias, scaled, mask=(of_up_bias >= 0) & (of_up_bias < WIDTH))
