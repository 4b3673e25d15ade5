"""LayerNorm of a sum, with and without dropout before it, all trials in one launch forwards and one or two backwards.

Backwards the second launch adds up the gradients of weight and bias, in an order that depends on nothing but a trial's
own rows: a packed trial's are those of the same trial alone to the bit.

Suffixes: K trials, N = K*M rows, D width.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from trainables.nn.kernels.philox import DropoutKeys
from trainables.nn.kernels.triton.philox import row_factors

_TILE = 2048  # elements of a program at a time: sixteen for each thread of four warps
_STRIP = 16  # rows of which a program adds up the gradients of weight and bias; any change of it changes their rounding
_PARTS = 32  # strips that are added up at once

DrawnFrom = tuple[DropoutKeys, int, Tensor]  # keys, site and rates of masks
_Gradients = tuple[Tensor | None, Tensor | None, Tensor | None, Tensor | None]


def forward(
    x_ND: Tensor,
    residual_ND: Tensor | None,
    weight: Tensor,
    bias: Tensor,
    eps: float,
    drawn_from: DrawnFrom | None,
    is_kept: bool,
) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """The result, and what is kept for the gradient: the normalised rows, and each one's 1 / standard deviation."""
    x_ND, residual_ND = x_ND.contiguous(), None if residual_ND is None else residual_ND.contiguous()
    weight, bias = _in_rows(weight), _in_rows(bias)
    num_rows, width = x_ND.shape
    out_ND = torch.empty_like(x_ND)
    normed_ND = torch.empty_like(x_ND) if is_kept else None
    rstd_N1 = x_ND.new_empty(num_rows, 1, dtype=torch.float32) if is_kept else None
    if not num_rows:
        return out_ND, normed_ND, rstd_N1
    num_trials = _num_trials(weight.shape, bias.shape, drawn_from)
    rows, columns = tile_of(width)
    blocks = triton.cdiv(num_rows // num_trials, rows)
    _forward[(num_trials * blocks,)](
        x_ND,
        residual_ND,
        weight,
        _step(weight),
        bias,
        _step(bias),
        eps,
        out_ND,
        normed_ND,
        rstd_N1,
        *drawing(drawn_from),
        num_rows // num_trials,
        blocks,
        ADDS=residual_ND is not None,
        DROPS=drawn_from is not None,
        KEEPS=is_kept,
        WIDTH=width,
        ROWS=rows,
        COLUMNS=columns,
    )
    return out_ND, normed_ND, rstd_N1


def backward(
    grad_ND: Tensor,
    normed_ND: Tensor,
    rstd_N1: Tensor,
    weight: Tensor,
    bias_shape: torch.Size,
    drawn_from: DrawnFrom | None,
    needed: tuple[bool, ...],
    bias_dtype: torch.dtype = torch.float32,
) -> _Gradients:
    """The gradients of x, residual, weight and bias that are needed, those of weight and bias in their own dtypes."""
    grad_ND, weight_shape, weight = grad_ND.contiguous(), weight.shape, _in_rows(weight)
    num_rows, width = grad_ND.shape
    num_trials = _num_trials(weight_shape, bias_shape, drawn_from)
    per_trial = num_rows // num_trials
    drops = drawn_from is not None
    grad_x = torch.empty_like(grad_ND) if needed[0] and (drops or not needed[1]) else None
    grad_residual = torch.empty_like(grad_ND) if needed[1] else None
    rows, columns = tile_of(width)
    # Without sums over rows a program has as few as it works on at once.
    strip = max(rows, _STRIP) if needed[2] or needed[3] else rows
    strips = triton.cdiv(per_trial, strip)
    parts = [
        grad_ND.new_empty(num_trials * strips, width, dtype=torch.float32) if need else None for need in needed[2:]
    ]
    if num_rows:
        _backward[(num_trials * strips,)](
            grad_ND,
            normed_ND,
            rstd_N1,
            weight,
            _step(weight),
            grad_x,
            grad_residual,
            *parts,
            *drawing(drawn_from),
            per_trial,
            strips,
            DROPS=drops,
            GIVES_X=grad_x is not None,
            GIVES_RESIDUAL=grad_residual is not None,
            GIVES_WEIGHT=needed[2],
            GIVES_BIAS=needed[3],
            WIDTH=width,
            ROWS=rows,
            COLUMNS=columns,
            STRIP=strip,
        )
    grad_weight, grad_bias = _add_up(parts, (weight_shape, bias_shape), (weight.dtype, bias_dtype))
    if needed[0] and grad_x is None:
        grad_x = grad_residual
    return grad_x, grad_residual, grad_weight, grad_bias


def _add_up(
    parts: list[Tensor | None], shapes: tuple[torch.Size, ...], dtypes: tuple[torch.dtype, ...]
) -> tuple[Tensor | None, Tensor | None]:
    """Sums of strips over all rows (D,), or over each trial's (K, D), of both tensors in one launch."""
    sums = [
        None if part is None else part.new_empty(shape, dtype=dtype)
        for part, shape, dtype in zip(parts, shapes, dtypes, strict=True)
    ]
    present = [(part, total) for part, total in zip(parts, sums, strict=True) if part is not None and total is not None]
    if present:
        (first, first_sum), (second, second_sum) = present[0], present[-1]
        num_strips, width = first.shape
        segments = [total.numel() // width for _, total in present]
        columns = min(64, triton.next_power_of_2(width))
        _sum_strips[(sum(segments), triton.cdiv(width, columns))](
            first,
            first_sum,
            num_strips // segments[0],
            segments[0],
            second,
            second_sum,
            num_strips // segments[-1],
            width,
            PARTS=_PARTS,
            COLUMNS=columns,
        )
    return sums[0], sums[1]


def tile_of(width: int) -> tuple[int, int]:
    """Rows and columns a program works on at once."""
    columns = max(8, triton.next_power_of_2(width))
    return max(1, min(_STRIP, _TILE // columns)), columns


def drawing(drawn_from: DrawnFrom | None) -> tuple[Tensor | int | None, ...]:
    """Seeds, steps, rates, places, positions and site."""
    if drawn_from is None:
        return None, None, None, None, None, 0
    keys, site, rates_K = drawn_from
    return keys.seeds_K, keys.steps_K, rates_K, keys.places_N, keys.positions_N, site


def _num_trials(weight_shape: torch.Size, bias_shape: torch.Size, drawn_from: DrawnFrom | None) -> int:
    """The segments of rows that have something of their own."""
    if drawn_from is not None:
        return len(drawn_from[0].seeds_K)
    return max(shape.numel() // shape[-1] for shape in (weight_shape, bias_shape))


def _in_rows(weight: Tensor) -> Tensor:
    """Each trial's numbers side by side; the trials' rows may lie apart, as a pack's weights do."""
    return weight if weight.stride(-1) == 1 else weight.contiguous()


def _step(weight: Tensor) -> int:
    """From one trial's weight to the next one's."""
    return weight.stride(0) if weight.numel() > weight.shape[-1] else 0


@triton.jit(
    do_not_specialize=["weight_step", "bias_step", "site", "per_trial", "blocks"],
    do_not_specialize_on_alignment=["weight", "bias", "seeds", "steps", "rates"],
)
def _forward(
    x,
    residual,
    weight,
    weight_step,
    bias,
    bias_step,
    eps,
    out,
    normed_out,
    rstd_out,
    seeds,
    steps,
    rates,
    places,
    positions,
    site,
    per_trial,
    blocks,
    ADDS: tl.constexpr,
    DROPS: tl.constexpr,
    KEEPS: tl.constexpr,
    WIDTH: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    """A program has ROWS whole rows of one trial."""
    trial = (tl.program_id(0) // blocks).to(tl.int64)
    within = tl.program_id(0) % blocks * ROWS + tl.arange(0, ROWS)
    is_row = within < per_trial
    row = trial * per_trial + within
    column = tl.arange(0, COLUMNS)
    is_column = column < WIDTH
    at = row[:, None] * WIDTH + column[None, :]
    inside = is_row[:, None] & is_column[None, :]
    total = tl.load(x + at, mask=inside, other=0.0).to(tl.float32)
    if DROPS:
        factors = row_factors(
            tl.load(positions + row, mask=is_row, other=0),
            tl.load(places + row, mask=is_row, other=0),
            site,
            tl.load(steps + trial),
            tl.load(seeds + trial),
            tl.load(rates + trial),
            0,
            ROWS,
            COLUMNS,
        )
        total = (total * factors).to(x.dtype.element_ty).to(tl.float32)
    if ADDS:
        total += tl.load(residual + at, mask=inside, other=0.0).to(tl.float32)
    mean = tl.sum(total, axis=1) / WIDTH
    centred = tl.where(inside, total - mean[:, None], 0.0)
    variance = tl.sum(centred * centred, axis=1) / WIDTH
    rstd = tl.div_rn(1.0, tl.sqrt_rn(variance + eps))
    normed = centred * rstd[:, None]
    scale = tl.load(weight + trial * weight_step + column, mask=is_column, other=0.0).to(tl.float32)
    shift = tl.load(bias + trial * bias_step + column, mask=is_column, other=0.0).to(tl.float32)
    result = normed * scale[None, :] + shift[None, :]
    tl.store(out + at, result.to(out.dtype.element_ty), mask=inside)
    if KEEPS:
        tl.store(normed_out + at, normed.to(normed_out.dtype.element_ty), mask=inside)
        tl.store(rstd_out + row, rstd, mask=is_row)


@triton.jit(
    do_not_specialize=["weight_step", "site", "per_trial", "strips"],
    do_not_specialize_on_alignment=["weight", "seeds", "steps", "rates"],
)
def _backward(
    grad,
    normed_in,
    rstd_in,
    weight,
    weight_step,
    grad_x,
    grad_residual,
    weight_parts,
    bias_parts,
    seeds,
    steps,
    rates,
    places,
    positions,
    site,
    per_trial,
    strips,
    DROPS: tl.constexpr,
    GIVES_X: tl.constexpr,
    GIVES_RESIDUAL: tl.constexpr,
    GIVES_WEIGHT: tl.constexpr,
    GIVES_BIAS: tl.constexpr,
    WIDTH: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    STRIP: tl.constexpr,
):
    """A program has STRIP rows of one trial, ROWS at a time."""
    trial = (tl.program_id(0) // strips).to(tl.int64)
    first = tl.program_id(0) % strips * STRIP
    column = tl.arange(0, COLUMNS)
    is_column = column < WIDTH
    scale = tl.load(weight + trial * weight_step + column, mask=is_column, other=0.0).to(tl.float32)
    weight_sums = tl.zeros((ROWS, COLUMNS), tl.float32)
    bias_sums = tl.zeros((ROWS, COLUMNS), tl.float32)
    for done in range(0, STRIP, ROWS):
        within = first + done + tl.arange(0, ROWS)
        is_row = within < per_trial
        row = trial * per_trial + within
        at = row[:, None] * WIDTH + column[None, :]
        inside = is_row[:, None] & is_column[None, :]
        upstream = tl.load(grad + at, mask=inside, other=0.0).to(tl.float32)
        normed = tl.load(normed_in + at, mask=inside, other=0.0).to(tl.float32)
        if GIVES_WEIGHT:
            weight_sums += upstream * normed
        if GIVES_BIAS:
            bias_sums += upstream
        if GIVES_X or GIVES_RESIDUAL:
            rstd = tl.load(rstd_in + row, mask=is_row, other=0.0)
            scaled = upstream * scale[None, :]
            along = tl.sum(scaled * normed, axis=1) / WIDTH
            mean = tl.sum(scaled, axis=1) / WIDTH
            gradient = (scaled - mean[:, None] - normed * along[:, None]) * rstd[:, None]
            rounded = gradient.to(grad.dtype.element_ty)
            if GIVES_RESIDUAL:
                tl.store(grad_residual + at, rounded, mask=inside)
            if GIVES_X:
                if DROPS:
                    factors = row_factors(
                        tl.load(positions + row, mask=is_row, other=0),
                        tl.load(places + row, mask=is_row, other=0),
                        site,
                        tl.load(steps + trial),
                        tl.load(seeds + trial),
                        tl.load(rates + trial),
                        0,
                        ROWS,
                        COLUMNS,
                    )
                    rounded = (rounded.to(tl.float32) * factors).to(grad.dtype.element_ty)
                tl.store(grad_x + at, rounded, mask=inside)
    part = tl.program_id(0).to(tl.int64) * WIDTH + column
    if GIVES_WEIGHT:
        tl.store(weight_parts + part, tl.sum(weight_sums, axis=0), mask=is_column)
    if GIVES_BIAS:
        tl.store(bias_parts + part, tl.sum(bias_sums, axis=0), mask=is_column)


@triton.jit(do_not_specialize=["first_strips", "first_segments", "second_strips", "width"])
def _sum_strips(
    first_parts,
    first_sums,
    first_strips,
    first_segments,
    second_parts,
    second_sums,
    second_strips,
    width,
    PARTS: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    """A program adds up the strips of one segment of one of two tensors, PARTS at a time, in some columns."""
    column = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    is_column = column < width
    segment = tl.program_id(0)
    is_second = segment >= first_segments
    parts = first_parts
    strips = first_strips
    if is_second:
        parts = second_parts
        strips = second_strips
        segment -= first_segments
    start = segment.to(tl.int64) * strips
    total = tl.zeros((COLUMNS,), tl.float32)
    for done in range(0, strips, PARTS):
        strip = done + tl.arange(0, PARTS)
        at = (start + strip)[:, None] * width + column[None, :]
        inside = (strip < strips)[:, None] & is_column[None, :]
        total += tl.sum(tl.load(parts + at, mask=inside, other=0.0), axis=0)
    at_sums = segment.to(tl.int64) * width + column
    if is_second:  # which may be of another dtype
        tl.store(second_sums + at_sums, total.to(second_sums.dtype.element_ty), mask=is_column)
    else:
        tl.store(first_sums + at_sums, total.to(first_sums.dtype.element_ty), mask=is_column)
