"""What is read of each sequence: its first row, or the mean over its rows; gradients in an order that never changes.

Suffixes: N rows, S sequences, D width.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from trainables.nn.kernels import triton
from trainables.nn.kernels.sequences import Sequences


def take_first(hidden_ND: Tensor, sequences: Sequences) -> Tensor:
    """Each sequence's first row (S, D)."""
    first_SD: Tensor = _First.apply(hidden_ND, sequences)
    return first_SD


def mean(hidden_ND: Tensor, owners_N: Tensor, sequences: Sequences) -> Tensor:
    """The mean over the rows of each sequence (S, D), summed in float32; not a number for a sequence without rows.

    `owners_N` is the sequence of each row, S for rows of none.
    """
    if triton.serves(hidden_ND):
        pooled_SD: Tensor = _Mean.apply(hidden_ND, owners_N, sequences)
        return pooled_SD
    total_SD = hidden_ND.new_zeros(len(sequences) + 1, hidden_ND.shape[1], dtype=torch.float32)
    total_SD = total_SD.index_add(0, owners_N, hidden_ND.float())[:-1]
    return (total_SD / sequences.lengths_S[:, None]).to(hidden_ND.dtype)


class _First(torch.autograd.Function):
    """Rows taken by index have a gradient that sorts them, a dozen launches; these are different ones."""

    @staticmethod
    def forward(ctx: Any, hidden_ND: Tensor, sequences: Sequences) -> Tensor:
        ctx.sequences, ctx.num_rows = sequences, len(hidden_ND)
        return hidden_ND.index_select(0, sequences.starts_S)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        # A sequence without rows may begin where another does; what is read of it has no gradient.
        grad_ND = grads[0].new_zeros(ctx.num_rows, grads[0].shape[1])
        return grad_ND.index_add_(0, ctx.sequences.starts_S, grads[0]), None


class _Mean(torch.autograd.Function):
    """In Triton, where the reference would add up rows in whatever order they come."""

    @staticmethod
    def forward(ctx: Any, hidden_ND: Tensor, owners_N: Tensor, sequences: Sequences) -> Tensor:
        from trainables.nn.kernels.triton.pooling import mean as mean_in_triton

        ctx.save_for_backward(owners_N)
        ctx.sequences = sequences
        return mean_in_triton(hidden_ND, sequences.starts_S, sequences.lengths_S)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        from trainables.nn.kernels.triton.pooling import spread

        (owners_N,) = ctx.saved_tensors
        return spread(grads[0], owners_N, ctx.sequences.lengths_S), None, None
