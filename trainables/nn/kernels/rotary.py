"""Rotary positions (Su et al. 2021): pairs of numbers of queries and keys, turned by angles that grow with the place.

Number i of a head is paired with number i + V/2, as in the checkpoints of Hugging Face. A product of a query and a key
then depends on how far apart they stand and not on where. Turning is done in float32 and rounded once.

Suffixes: N rows, X columns, V head width, P = V/2 pairs.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


def angles(positions_N: Tensor, theta: float, head_width: int) -> tuple[Tensor, Tensor]:
    """Cosines and sines (N, P), float32, of position / theta^(2i/V) for the pairs i."""
    exponents_P = torch.arange(0, head_width, 2, dtype=torch.float32, device=positions_N.device) / head_width
    turns_NP = positions_N[:, None].float() * (1.0 / theta**exponents_P)
    return turns_NP.cos(), turns_NP.sin()


def rotate(rows_NX: Tensor, angles_NP: tuple[Tensor, Tensor], num_rotated: int) -> Tensor:
    """Rows whose first `num_rotated` columns, heads side by side, are turned; the other columns stay."""
    rotated: Tensor = _Rotate.apply(rows_NX, *angles_NP, num_rotated)
    return rotated


class _Rotate(torch.autograd.Function):
    """A rotation's gradient is the gradient turned back."""

    @staticmethod
    def forward(ctx: Any, rows_NX: Tensor, cosines_NP: Tensor, sines_NP: Tensor, num_rotated: int) -> Tensor:
        ctx.save_for_backward(cosines_NP, sines_NP)
        ctx.num_rotated = num_rotated
        return _turned(rows_NX, cosines_NP, sines_NP, num_rotated)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None, None]:
        cosines_NP, sines_NP = ctx.saved_tensors
        return _turned(grads[0], cosines_NP, -sines_NP, ctx.num_rotated), None, None, None


def _turned(rows_NX: Tensor, cosines_NP: Tensor, sines_NP: Tensor, num_rotated: int) -> Tensor:
    out_NX = torch.empty_like(rows_NX, memory_format=torch.contiguous_format)
    out_NX[:, num_rotated:] = rows_NX[:, num_rotated:]
    pairs = (-1, 2, cosines_NP.shape[1])  # of a head: its lower half, then its upper half
    lower, upper = rows_NX[:, :num_rotated].float().unflatten(1, pairs).unbind(2)
    cosines, sines = cosines_NP[:, None], sines_NP[:, None]
    to_lower, to_upper = out_NX[:, :num_rotated].unflatten(1, pairs).unbind(2)
    to_lower.copy_(torch.addcmul(lower * cosines, upper, sines, value=-1))
    to_upper.copy_(torch.addcmul(upper * cosines, lower, sines))
    return out_NX
