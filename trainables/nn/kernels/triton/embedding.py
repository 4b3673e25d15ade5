"""Embeddings from look-up to dropout in one launch, of tables that nobody trains.

Suffixes: N = K*M rows of K trials, D width.
"""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from trainables.nn.kernels.triton.layernorm import DrawnFrom, drawing, tile_of
from trainables.nn.kernels.triton.philox import row_factors


def embed(
    ids_N: Tensor,
    positions_N: Tensor,
    types_N: Tensor,
    tables: tuple[Tensor, Tensor, Tensor | None],
    offset: int,
    weight_D: Tensor,
    bias_D: Tensor,
    eps: float,
    drawn_from: DrawnFrom | None,
) -> Tensor:
    """Dropout of LN(word + position + type) (N, D), rounded to the dtype of the tables wherever torch rounds it.

    Args:
        tables: of words, positions and types, all (rows, D); without types None.
        offset: added to positions.
        drawn_from: what masks follow from; None where nothing is dropped.
    """
    word, position, token_type = (None if table is None else table.contiguous() for table in tables)
    assert word is not None
    num_rows, width = len(ids_N), word.shape[1]
    out_ND = word.new_empty(num_rows, width)
    if not num_rows:
        return out_ND
    num_trials = 1 if drawn_from is None else len(drawn_from[0].seeds_K)
    rows, columns = tile_of(width)
    blocks = triton.cdiv(num_rows // num_trials, rows)
    _embed[(num_trials * blocks,)](
        ids_N.contiguous(),
        positions_N.contiguous(),
        types_N.contiguous(),
        word,
        position,
        token_type,
        offset,
        0 if token_type is None else len(token_type),
        weight_D.contiguous(),
        bias_D.contiguous(),
        eps,
        out_ND,
        *drawing(drawn_from),
        num_rows // num_trials,
        blocks,
        HAS_TYPES=token_type is not None,
        DROPS=drawn_from is not None,
        WIDTH=width,
        ROWS=rows,
        COLUMNS=columns,
    )
    return out_ND


@triton.jit(
    do_not_specialize=["offset", "num_types", "site", "per_trial", "blocks"],
    do_not_specialize_on_alignment=["seeds", "steps", "rates"],
)
def _embed(
    ids,
    row_positions,
    types,
    word,
    position,
    token_type,
    offset,
    num_types,
    weight,
    bias,
    eps,
    out,
    seeds,
    steps,
    rates,
    places,
    positions,
    site,
    per_trial,
    blocks,
    HAS_TYPES: tl.constexpr,
    DROPS: tl.constexpr,
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
    inside = is_row[:, None] & is_column[None, :]
    dtype = out.dtype.element_ty
    entry = tl.load(ids + row, mask=is_row, other=0).to(tl.int64)
    total = tl.load(word + entry[:, None] * WIDTH + column[None, :], mask=inside, other=0.0).to(tl.float32)
    entry = tl.load(row_positions + row, mask=is_row, other=0).to(tl.int64) + offset
    total += tl.load(position + entry[:, None] * WIDTH + column[None, :], mask=inside, other=0.0).to(tl.float32)
    total = total.to(dtype).to(tl.float32)
    if HAS_TYPES:
        entry = tl.load(types + row, mask=is_row, other=0).to(tl.int64)
        entry = tl.where(entry < num_types, entry, num_types - 1)
        total += tl.load(token_type + entry[:, None] * WIDTH + column[None, :], mask=inside, other=0.0).to(tl.float32)
        total = total.to(dtype).to(tl.float32)
    mean = tl.sum(total, axis=1) / WIDTH
    centred = tl.where(inside, total - mean[:, None], 0.0)
    variance = tl.sum(centred * centred, axis=1) / WIDTH
    rstd = tl.div_rn(1.0, tl.sqrt_rn(variance + eps))
    scale = tl.load(weight + column, mask=is_column, other=0.0).to(tl.float32)
    shift = tl.load(bias + column, mask=is_column, other=0.0).to(tl.float32)
    result = (centred * rstd[:, None] * scale[None, :] + shift[None, :]).to(dtype)
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
        result = (result.to(tl.float32) * factors).to(dtype)
    tl.store(out + row[:, None] * WIDTH + column[None, :], result, mask=inside)
