"""Dropout whose masks follow from keys: a mask is a function of trial, step, place in the batch, site and element.

The generator is Philox 4x32-10 (Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3"). A mask is drawn
again wherever it is needed, so none is stored, no generator has a state, and a mask depends neither on pack-mates nor
on padding, device or retries.

Suffixes: K trials, N = K*M rows, W width of a row, S sequences, H heads, Q queries, L keys.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from trainables.nn.kernels import native, triton

_MASK = 0xFFFF_FFFF
_MULTIPLIERS = 0xD2511F53, 0xCD9E8D57
_WEYL = 0x9E3779B9, 0xBB67AE85
_ROUNDS = 10
_PER_DRAW = 8  # 16-bit numbers of a draw of four 32-bit words
_SIGNS = -0x7FFF_7FFF_7FFF_8000  # 0x8000 in each of four 16-bit numbers: unsigned order becomes signed order


@dataclass(frozen=True, kw_only=True, eq=False)
class DropoutKeys:
    """What the masks of one step follow from. Places and sites are below 2**16, rates in [0, 1)."""

    seeds_K: Tensor  # int64 (K,): the key, its low and high 32 bits, one a trial
    steps_K: Tensor  # int64 (K,)
    rates_K: Tensor  # float32 (K,)
    places_N: Tensor  # int32 (N,): the place of a row's sequence in its trial's batch
    positions_N: Tensor  # int32 (N,): a row's place in its sequence


def dropout(x_NW: Tensor, keys: DropoutKeys, site: int, rates_K: Tensor | None = None) -> Tensor:
    """Rows with elements dropped at each trial's rate, or at `rates_K`; rounded once, to the dtype of the rows.

    Element e of a row is number e % 8 of the draw at counter (e // 8, position, place | site << 16, step); it is kept
    where that number is at least min(round(rate * 2**16), 2**16 - 1), and multiplied by 1 / (1 - rate).

    Keys of one row a sequence, with K*B places and positions, serve rows (K*B, W).
    """
    dropped: Tensor = _Dropout.apply(x_NW, keys, site, keys.rates_K if rates_K is None else rates_K)
    return dropped


class _Dropout(torch.autograd.Function):
    """Keeps the keys alone."""

    @staticmethod
    def forward(ctx: Any, x_NW: Tensor, keys: DropoutKeys, site: int, rates_K: Tensor) -> Tensor:
        ctx.drawn_from = keys, site, rates_K
        return multiply(x_NW, keys, site, rates_K)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None, None]:
        return multiply(grads[0], *ctx.drawn_from), None, None, None


def multiply(x_NW: Tensor, keys: DropoutKeys, site: int, rates_K: Tensor) -> Tensor:
    """What `dropout` computes, without a gradient of its own."""
    if triton.serves(x_NW):
        from trainables.nn.kernels.triton.dropout import multiply as multiply_in_triton

        return multiply_in_triton(x_NW, keys, site, rates_K)
    if (library := native.library_for(x_NW)) is not None:
        x_NW = x_NW.contiguous()
        out_NW = torch.empty_like(x_NW)
        sizes = *x_NW.shape, len(keys.seeds_K)
        drawn_from = native_keys(keys, site, rates_K)
        native.check(
            library.dropout_rows(x_NW.dtype is torch.bfloat16, *sizes, *native.addresses(x_NW, out_NW), drawn_from)
        )
        return out_NW
    return (x_NW * row_mask(keys, x_NW.shape[1], site, rates_K)).to(x_NW.dtype)


def native_keys(keys: DropoutKeys, site: int, rates_K: Tensor) -> native.Keys:
    """The keys as the kernels in C take them; valid while the tensors live."""
    return native.Keys(*native.addresses(keys.seeds_K, keys.steps_K, rates_K, keys.places_N, keys.positions_N), site)


def row_mask(keys: DropoutKeys, width: int, site: int, rates_K: Tensor) -> Tensor:
    """The factors of all elements (N, W), float32: 0, or 1 / (1 - rate)."""
    num_trials = len(keys.seeds_K)
    draws = torch.arange(-(-width // _PER_DRAW), device=keys.seeds_K.device)
    position_KM1 = keys.positions_N.view(num_trials, -1, 1).long()
    place_KM1 = keys.places_N.view(num_trials, -1, 1).long()
    counter = draws, position_KM1, place_KM1 | site << 16, keys.steps_K.view(-1, 1, 1) & _MASK
    numbers_KMW = _numbers(counter, keys.seeds_K.view(-1, 1, 1))[..., :width]
    return _factors(numbers_KMW, rates_K.view(-1, 1, 1)).view(-1, width)


def attention_mask(
    keys: DropoutKeys,
    trials_S: Tensor,
    places_S: Tensor,
    num_heads: int,
    length: int,
    site: int,
    dtype: torch.dtype,
    *,
    queries: int | None = None,
    rates_K: Tensor | None = None,
    firsts: tuple[Tensor, Tensor] | None = None,
) -> Tensor:
    """The factors (S, H, Q, L) of the attention probabilities of some sequences, padded to one length.

    Of the keys only those of trials are read. Element (s, h, i, j) is number j % 8 of the draw at counter
    (j // 8 | h << 16, i, place | site << 16, step), so it depends neither on the padding nor on the other sequences.

    Args:
        trials_S: each sequence's trial, int64.
        places_S: each sequence's place in its trial's batch, int32.
        queries: Q, where only the first queries are wanted; otherwise L.
        rates_K: in place of the keys' own.
        firsts: of each sequence the place of its first query and that of its first key, a multiple of 8, int64 (S,),
            where those are not 0. What a key below 0 gets means nothing.
    """
    device = keys.seeds_K.device
    heads_H11 = torch.arange(num_heads, device=device).view(-1, 1, 1) << 16
    draws_L = torch.arange(-(-length // _PER_DRAW), device=device)
    positions_Q1 = torch.arange(length if queries is None else queries, device=device).view(-1, 1)
    if firsts is not None:
        positions_Q1 = positions_Q1 + firsts[0].view(-1, 1, 1, 1)
        draws_L = (draws_L + (firsts[1] // _PER_DRAW).view(-1, 1, 1, 1)).clamp_min_(0)
    draws_HQL = draws_L | heads_H11
    places_S111 = places_S.view(-1, 1, 1, 1).long() | site << 16
    counter = draws_HQL, positions_Q1, places_S111, keys.steps_K[trials_S].view(-1, 1, 1, 1) & _MASK
    numbers_SHQL = _numbers(counter, keys.seeds_K[trials_S].view(-1, 1, 1, 1))[..., :length]
    rates_S = (keys.rates_K if rates_K is None else rates_K)[trials_S]
    return _factors(numbers_SHQL, rates_S.view(-1, 1, 1, 1)).to(dtype)


def philox(counter: tuple[Tensor, Tensor, Tensor, Tensor], seed: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The four output words of Philox 4x32-10, in the low 32 bits of int64, of counters that broadcast together."""
    keys = [
        [(half + round_ * weyl) & _MASK for round_ in range(_ROUNDS)]
        for half, weyl in zip((seed & _MASK, (seed >> 32) & _MASK), _WEYL, strict=True)
    ]
    # Products wrap at 64 bits, which leaves both halves right. Only what is multiplied next must be clean above bit 31.
    x0, x1, x2, x3 = counter
    for key0, key1 in zip(*keys, strict=True):
        product0, product1 = x0 * _MULTIPLIERS[0], x2 * _MULTIPLIERS[1]
        x0, x1 = ((product1 >> 32) ^ (x1 ^ key0)).bitwise_and_(_MASK), product1
        x2, x3 = ((product0 >> 32) ^ (x3 ^ key1)).bitwise_and_(_MASK), product0
    return x0, x1 & _MASK, x2, x3 & _MASK


def _numbers(counter: tuple[Tensor, Tensor, Tensor, Tensor], seed: Tensor) -> Tensor:
    """The 16-bit numbers of these draws, less 2**15 and as int16; eight to a draw, along the last dimension."""
    x0, x1, x2, x3 = philox(counter, seed)
    return (torch.stack([x0 | x1 << 32, x2 | x3 << 32], dim=-1) ^ _SIGNS).view(torch.int16).flatten(-2)


def _factors(numbers: Tensor, rates: Tensor) -> Tensor:
    threshold = ((rates * 2**16).round().clamp_max(2**16 - 1) - 2**15).to(torch.int16)
    # Straight into float32: on a CPU the detour over bools costs eight times as much.
    factors = torch.empty(numbers.shape, dtype=torch.float32, device=numbers.device)
    torch.ge(numbers, threshold, out=factors)
    return factors.mul_(1 / (1 - rates))
