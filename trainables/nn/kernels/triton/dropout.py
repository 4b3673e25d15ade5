"""Keyed dropout of rows, one launch for all trials.

Suffixes: K trials, N = K*M rows, W width of a row.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from trainables.nn.kernels.philox import DropoutKeys
from trainables.nn.kernels.triton.philox import row_factors

_TILE = 2048  # elements of a program: sixteen for each thread of four warps
_WIDEST = 1024


def multiply(x_NW: Tensor, keys: DropoutKeys, site: int, rates_K: Tensor) -> Tensor:
    """What `philox.multiply` computes."""
    x_NW = x_NW.contiguous()
    out_NW = torch.empty_like(x_NW)
    (num_rows, width), num_trials = x_NW.shape, len(keys.seeds_K)
    if not x_NW.numel():
        return out_NW
    per_trial = num_rows // num_trials
    columns = min(_WIDEST, max(8, triton.next_power_of_2(width)))
    rows = _TILE // columns
    blocks = triton.cdiv(per_trial, rows)
    _multiply[(num_trials * blocks, triton.cdiv(width, columns))](
        x_NW,
        out_NW,
        keys.seeds_K,
        keys.steps_K,
        rates_K,
        keys.places_N,
        keys.positions_N,
        site,
        per_trial,
        blocks,
        WIDTH=width,
        ROWS=rows,
        COLUMNS=columns,
    )
    return out_NW


@triton.jit(
    do_not_specialize=["site", "per_trial", "blocks"], do_not_specialize_on_alignment=["seeds", "steps", "rates"]
)
def _multiply(
    x,
    out,
    seeds,
    steps,
    rates,
    places,
    positions,
    site,
    per_trial,
    blocks,
    WIDTH: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    """A program has ROWS rows of one trial and COLUMNS of their elements."""
    trial = tl.program_id(0) // blocks
    within = tl.program_id(0) % blocks * ROWS + tl.arange(0, ROWS)
    is_row = within < per_trial
    row = trial.to(tl.int64) * per_trial + within
    first = tl.program_id(1) * COLUMNS
    column = first + tl.arange(0, COLUMNS)
    factors = row_factors(
        tl.load(positions + row, mask=is_row, other=0),
        tl.load(places + row, mask=is_row, other=0),
        site,
        tl.load(steps + trial),
        tl.load(seeds + trial),
        tl.load(rates + trial),
        first,
        ROWS,
        COLUMNS,
    )
    at = row[:, None] * WIDTH + column[None, :]
    inside = is_row[:, None] & (column < WIDTH)[None, :]
    numbers = tl.load(x + at, mask=inside, other=0.0).to(tl.float32)
    tl.store(out + at, (numbers * factors).to(out.dtype.element_ty), mask=inside)
