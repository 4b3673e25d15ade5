"""Self-attention in which each row sees only rows near it in its sequence, with keyed dropout of its probabilities.

A sequence is cut into blocks as long as the window is wide to one side, rounded up; the queries of a block see keys of
their own block and its two neighbours alone. So the work grows with the length, and not with its square. Products are
in the dtype of the rows, the softmax is float32.

Suffixes: N rows, D width, G sequences of a group, C blocks of a sequence, B = G*C, W rows of a block, H heads, V head
width, L length of a group in whole blocks.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from trainables.nn.kernels.attention import Masks
from trainables.nn.kernels.philox import DropoutKeys, attention_mask
from trainables.nn.kernels.sequences import Group, Sequences

_MULTIPLE = 8  # masks are drawn by eight


def attend_locally(
    qkv_N3D: Tensor,
    num_heads: int,
    window: int,
    sequences: Sequences,
    keys: DropoutKeys | None,
    site: int,
    rates_K: Tensor | None = None,
) -> Tensor:
    """What `nn.kernels.attention.attend` gives (N, D), were each row's scores with rows more than `window` away -inf.

    Masks are those of `attend`: an element's does not depend on the window.
    """
    num_rows, width = len(qkv_N3D), qkv_N3D.shape[1] // 3
    masks = Masks.of(keys, site, rates_K)
    # One more row: what padding reads are zeros, and what comes of it is thrown away.
    rows = torch.cat([qkv_N3D, qkv_N3D.new_zeros(1, 3 * width)])
    out_ND = qkv_N3D.new_zeros(num_rows + 1, width)
    for group in sequences.groups:
        blocks = _Blocks(group, window, num_rows)
        heads = rows.index_select(0, blocks.rows_GL.flatten()).view(*blocks.rows_GL.shape, 3, num_heads, -1)
        attended = _attend(heads, blocks, window, None if masks is None else blocks.draw(masks, num_heads))
        out_ND = out_ND.index_copy(0, blocks.rows_GL.flatten(), attended.flatten(0, 1).to(out_ND.dtype))
    return out_ND[:-1]


class _Blocks:
    """The sequences of a group cut into C blocks of W rows; a sequence of one block has no neighbours to see."""

    def __init__(self, group: Group, window: int, num_rows: int) -> None:
        self.group = group
        self.width = -(-window // _MULTIPLE) * _MULTIPLE
        self.number = -(-group.length // self.width)
        self.neighbours = 1 if self.number > 1 else 0  # to each side
        padding = self.number * self.width - group.length
        self.rows_GL = F.pad(group.targets_GL, (0, padding), value=num_rows)
        self.is_row_GL = F.pad(~group.padding_GL, (0, padding), value=False)

    def around(self, padded: Tensor) -> Tensor:
        """For each block, what stands in it and in its neighbours (G, C, (1 or 3) W, ...) of (G, L, ...)."""
        blocks = padded.unflatten(1, (self.number, self.width))
        if not self.neighbours:
            return blocks
        nothing = blocks.new_zeros(blocks.shape[0], 1, *blocks.shape[2:])
        framed = torch.cat([nothing, blocks, nothing], dim=1)
        return torch.cat([framed[:, :-2], framed[:, 1:-1], framed[:, 2:]], dim=2)

    def draw(self, masks: Masks, num_heads: int) -> Tensor:
        """Factors (B, H, W, keys) of probabilities, float32."""
        group, seen = self.group, (1 + 2 * self.neighbours) * self.width
        firsts_B = torch.arange(self.number, device=group.trials_G.device).repeat(len(group.trials_G)) * self.width
        return attention_mask(
            masks.keys,
            group.trials_G.repeat_interleave(self.number),
            group.places_G.repeat_interleave(self.number),
            num_heads,
            seen,
            masks.site,
            torch.float32,
            queries=self.width,
            rates_K=masks.rates_K,
            firsts=(firsts_B, firsts_B - self.neighbours * self.width),
        )


def _attend(heads: Tensor, blocks: _Blocks, window: int, factors: Tensor | None) -> Tensor:
    """What comes out (G, L, D) of gathered heads (G, L, 3, H, V)."""
    query, key, value = heads.unbind(2)
    query = query.unflatten(1, (blocks.number, blocks.width)).flatten(0, 1).transpose(1, 2)  # (B, H, W, V)
    key, value = (blocks.around(each).flatten(0, 1).transpose(1, 2) for each in (key, value))
    places_W1 = torch.arange(blocks.width, device=heads.device)[:, None] + blocks.neighbours * blocks.width
    is_near = (places_W1 - torch.arange(key.shape[2], device=heads.device)).abs() <= window
    is_seen = is_near & blocks.around(blocks.is_row_GL).flatten(0, 1)[:, None, None]  # (B, 1, W, keys)
    # Finite, so that a query of padding, which sees nothing, does not give NaN.
    scores = (query @ key.transpose(2, 3)).float() * query.shape[-1] ** -0.5
    probabilities = scores.masked_fill(~is_seen, torch.finfo(torch.float32).min).softmax(dim=-1)
    dropped = probabilities if factors is None else probabilities * factors
    attended = dropped.to(value.dtype) @ value
    return attended.transpose(1, 2).flatten(2).unflatten(0, (-1, blocks.number)).flatten(1, 2)
