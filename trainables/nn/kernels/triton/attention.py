"""Self-attention of sequences laid end to end in Triton, with keyed dropout of its probabilities.

Forwards a launch; backwards one where all keys of a sequence fit into a block, otherwise two. How a launch is laid out
follows from the numbers of rows and of sequences and from the longest length's power of two; nothing is read from the
device.

Suffixes: N rows, D width, S sequences.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
import triton
from torch import Tensor

from trainables.nn.kernels.sequences import Sequences
from trainables.nn.kernels.triton import attention_kernels as kernels

if TYPE_CHECKING:
    from trainables.nn.kernels.attention import Masks


class Attention(torch.autograd.Function):
    """`nn.kernels.attention.attend`."""

    @staticmethod
    def forward(ctx: Any, qkv_N3D: Tensor, num_heads: int, sequences: Sequences, masks: Masks | None) -> Tensor:
        qkv_N3D = qkv_N3D if qkv_N3D.stride(1) == 1 else qkv_N3D.contiguous()
        ctx.launch = _Launch(num_heads, sequences, masks, is_first=False)
        return ctx.launch.forward(ctx, qkv_N3D.chunk(3, dim=1))

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None, None]:
        num_rows, width = grads[0].shape
        grad_qkv = grads[0].new_empty(num_rows, 3 * width)
        ctx.launch.backward(ctx, grads[0], grad_qkv.chunk(3, dim=1))
        return grad_qkv, None, None, None


class FirstAttention(torch.autograd.Function):
    """`nn.kernels.attention.attend_first`."""

    @staticmethod
    def forward(
        ctx: Any,
        query_SD: Tensor,
        key_ND: Tensor,
        value_ND: Tensor,
        num_heads: int,
        sequences: Sequences,
        masks: Masks | None,
    ) -> Tensor:
        parts = [part if part.stride(1) == 1 else part.contiguous() for part in (query_SD, key_ND, value_ND)]
        ctx.launch = _Launch(num_heads, sequences, masks, is_first=True)
        return ctx.launch.forward(ctx, parts)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        gradients = [torch.empty_like(part, memory_format=torch.contiguous_format) for part in ctx.saved_tensors[:3]]
        ctx.launch.backward(ctx, grads[0], gradients)
        return *gradients, None, None, None


class Blocks(NamedTuple):
    """How many queries and keys a program has at a time, and on how many warps."""

    queries: int
    keys: int
    warps: int


def forward_blocks(longest: int, mean: int, width: int, dtype: torch.dtype) -> Blocks:
    """Blocks that suit sequences of this longest and mean length, and heads of this width.

    Small ones, since most sequences have a dozen rows: what is past the last row is computed, and thrown away.
    """
    most = min(_most_keys(width, dtype), _power(longest))
    if mean >= 48:
        return Blocks(most, most, most // 16)
    return Blocks(16, min(32, most), 1)


def backward_blocks(longest: int, mean: int, width: int, dtype: torch.dtype) -> tuple[Blocks, bool]:
    """Likewise, and whether a block holds all keys of any sequence."""
    queries, keys, _ = forward_blocks(longest, mean, width, dtype)
    is_alone = _power(longest) <= keys
    if is_alone:
        queries = 16
    # The sums for two rows of each key stay in registers.
    return Blocks(queries, keys, max(1, queries // 16, keys * _power(width) // 1024)), is_alone


def _most_keys(width: int, dtype: torch.dtype) -> int:
    """Keys of a block for which registers suffice; products of float32 need twice as many."""
    return max(16, 64 * 64 // max(64, _power(width)) // (2 if dtype is torch.float32 else 1))


def _power(size: int) -> int:
    """The least power of two that is no smaller, and that tensor cores take."""
    return max(16, triton.next_power_of_2(size))


class _Launch:
    """Launches the kernels on the rows of a batch."""

    def __init__(self, num_heads: int, sequences: Sequences, masks: Masks | None, *, is_first: bool) -> None:
        self.num_heads, self.sequences, self.masks, self.is_first = num_heads, sequences, masks, is_first
        self.lengths = sequences.longest, 1 if is_first else sequences.num_rows // max(1, len(sequences))

    def forward(self, ctx: Any, parts: Sequence[Tensor]) -> Tensor:
        """What comes out, contiguous; keeps what `backward` needs."""
        out = torch.empty_like(parts[0], memory_format=torch.contiguous_format)
        logsums = torch.empty(self.num_heads, len(out), dtype=torch.float32, device=out.device)
        blocks = forward_blocks(*self.lengths, *self._kind(out))
        steps = [part.stride(0) for part in parts]
        grid = self._grid(1 if self.is_first else self._shares)
        kernels.forward[grid](*parts, out, logsums, *self._drawn_from, *steps, **self._constants(out, blocks))
        _, is_alone = backward_blocks(*self.lengths, *self._kind(out))
        ctx.save_for_backward(*parts, logsums, *([] if is_alone else [out]))
        return out

    def backward(self, ctx: Any, grad: Tensor, gradients: Sequence[Tensor]) -> None:
        """Write the gradients of queries, keys and values."""
        query, key, value, logsums, *kept = ctx.saved_tensors
        parts = query, key, value
        grad = grad.contiguous()
        blocks, is_alone = backward_blocks(*self.lengths, *self._kind(grad))
        constants = self._constants(grad, blocks)
        steps = [part.stride(0) for part in (*parts, *gradients)]
        sums = None
        if not is_alone:
            sums = torch.empty_like(logsums)
            grid = self._grid(1 if self.is_first else self._shares)
            kernels.backward_queries[grid](
                *parts, *kept, grad, logsums, sums, gradients[0], *self._drawn_from, *steps[:4], **constants
            )
        grid = self._grid(1 if is_alone else self._shares)
        kernels.backward_keys[grid](
            *parts, grad, logsums, sums, *gradients, *self._drawn_from, *steps, **constants, ALONE=is_alone
        )

    @property
    def _shares(self) -> int:
        """Programs among which a head's blocks are shared out, so that each has few."""
        return max(1, _power(self.sequences.longest) // 64)

    def _grid(self, shares: int) -> tuple[int, int]:
        return len(self.sequences) * self.num_heads, shares

    def _kind(self, rows: Tensor) -> tuple[int, torch.dtype]:
        return rows.shape[1] // self.num_heads, rows.dtype

    @property
    def _drawn_from(self) -> tuple[Tensor | int | None, ...]:
        """Where sequences lie, and what their masks follow from."""
        sequences, masks = self.sequences, self.masks
        per_trial = len(sequences) // sequences.num_trials
        where = sequences.starts_S, sequences.lengths_S
        if masks is None:
            return *where, None, None, None, sequences.num_rows, per_trial, 0
        keys = masks.keys
        return *where, keys.seeds_K, keys.steps_K, masks.rates_K, sequences.num_rows, per_trial, masks.site

    def _constants(self, rows: Tensor, blocks: Blocks) -> dict[str, Any]:
        width, _ = self._kind(rows)
        return {
            "SCALE": width**-0.5,
            "HEADS": self.num_heads,
            "WIDTH": width,
            "PADDED": _power(width),
            "QUERIES": blocks.queries,
            "KEYS": blocks.keys,
            "FIRST": self.is_first,
            "DROPS": self.masks is not None,
            "num_warps": blocks.warps,
            "num_stages": 1 if blocks.queries == 16 else 2,
        }
