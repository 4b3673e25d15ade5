"""The mean over the rows of each sequence and its gradient, a launch each.

Suffixes: N rows, S sequences, D width.
"""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

_ROWS, _COLUMNS = 16, 128  # a program's at once


def mean(hidden_ND: Tensor, starts_S: Tensor, lengths_S: Tensor) -> Tensor:
    """What `kernels.pooling.mean` computes."""
    hidden_ND = hidden_ND.contiguous()
    width = hidden_ND.shape[1]
    out_SD = hidden_ND.new_empty(len(starts_S), width)
    if out_SD.numel():
        _mean[(len(starts_S), triton.cdiv(width, _COLUMNS))](
            hidden_ND, starts_S, lengths_S, out_SD, WIDTH=width, ROWS=_ROWS, COLUMNS=_COLUMNS
        )
    return out_SD


def spread(grad_SD: Tensor, owners_N: Tensor, lengths_S: Tensor) -> Tensor:
    """The gradient of the rows (N, D), of that of their means; zeros for rows of no sequence."""
    grad_SD = grad_SD.contiguous()
    num_rows, width = len(owners_N), grad_SD.shape[1]
    out_ND = grad_SD.new_empty(num_rows, width)
    if out_ND.numel():
        _spread[(triton.cdiv(num_rows, _ROWS), triton.cdiv(width, _COLUMNS))](
            grad_SD,
            owners_N,
            lengths_S,
            out_ND,
            num_rows,
            len(lengths_S),
            WIDTH=width,
            ROWS=_ROWS,
            COLUMNS=_COLUMNS,
        )
    return out_ND


@triton.jit
def _mean(hidden, starts, lengths, out, WIDTH: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    """A program has some columns of a sequence, whose rows it adds up in their order."""
    sequence = tl.program_id(0).to(tl.int64)
    column = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    is_column = column < WIDTH
    start = tl.load(starts + sequence).to(tl.int64)
    length = tl.load(lengths + sequence)
    sums = tl.zeros((ROWS, COLUMNS), tl.float32)
    for done in range(0, length, ROWS):
        place = done + tl.arange(0, ROWS)
        at = (start + place)[:, None] * WIDTH + column[None, :]
        inside = (place < length)[:, None] & is_column[None, :]
        sums += tl.load(hidden + at, mask=inside, other=0.0).to(tl.float32)
    mean = tl.div_rn(tl.sum(sums, axis=0), length.to(tl.float32))
    tl.store(out + sequence * WIDTH + column, mean.to(out.dtype.element_ty), mask=is_column)


@triton.jit(do_not_specialize=["num_rows", "num_sequences"])
def _spread(
    grad,
    owners,
    lengths,
    out,
    num_rows,
    num_sequences,
    WIDTH: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    column = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    is_row = row < num_rows
    owner = tl.load(owners + row, mask=is_row, other=0).to(tl.int64)
    is_owned = is_row & (owner < num_sequences)
    length = tl.load(lengths + owner, mask=is_owned, other=1).to(tl.float32)
    is_column = (column < WIDTH)[None, :]
    gradient = tl.load(grad + owner[:, None] * WIDTH + column[None, :], mask=is_owned[:, None] & is_column, other=0.0)
    share = tl.div_rn(gradient.to(tl.float32), tl.broadcast_to(length[:, None], (ROWS, COLUMNS)))
    tl.store(
        out + row[:, None] * WIDTH + column[None, :], share.to(out.dtype.element_ty), mask=is_row[:, None] & is_column
    )
