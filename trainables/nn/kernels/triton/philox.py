"""Keyed masks inside kernels, the same bits as those of `nn.kernels.philox`; device functions, which launch nothing.

What every program of a kernel asks for belongs to one trial: its seed, step and rate are scalars. A kernel names the
site in its `do_not_specialize`: the site 1 would otherwise be a constant, which has no `to`.
"""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def row_factors(positions, places, site, step, seed, rate, first, ROWS: tl.constexpr, WIDTH: tl.constexpr):
    """The factors (ROWS, WIDTH) of elements first, first + 1, ... of some rows of a trial, float32.

    Args:
        positions: int32 (ROWS,), as in `DropoutKeys`.
        places: int32 (ROWS,).
        site: a number below 2**16.
        step: int64.
        seed: int64.
        rate: float32.
        first: an element that 8 divides.
        ROWS: a power of two.
        WIDTH: a power of two, 8 at least.
    """
    draws = (first // 8 + tl.arange(0, WIDTH // 8)).to(tl.uint32)
    placed = places.to(tl.uint32) | site.to(tl.uint32) << 16
    numbers = numbers_of(
        draws[None, :], positions.to(tl.uint32)[:, None], placed[:, None], step.to(tl.uint32), seed, ROWS, WIDTH
    )
    return factors_of(numbers, rate)


@triton.jit
def attention_factors(queries, first_key, head, place, site, step, seed, rate, ROWS: tl.constexpr, KEYS: tl.constexpr):
    """The factors (ROWS, KEYS) of a sequence's attention probabilities in one head, float32.

    Args:
        queries: int32 (ROWS,), places of the queries in the sequence.
        first_key: place of the first of the keys, which 8 divides.
        head: its number.
        place: of the sequence in its trial's batch.
        KEYS: a power of two, 8 at least; all else as in `row_factors`.
    """
    draws = (first_key // 8 + tl.arange(0, KEYS // 8)).to(tl.uint32) | head.to(tl.uint32) << 16
    placed = place.to(tl.uint32) | site.to(tl.uint32) << 16
    numbers = numbers_of(draws[None, :], queries.to(tl.uint32)[:, None], placed, step.to(tl.uint32), seed, ROWS, KEYS)
    return factors_of(numbers, rate)


@triton.jit
def numbers_of(c0, c1, c2, c3, seed, ROWS: tl.constexpr, WIDTH: tl.constexpr):
    """The 16-bit numbers of the draws at counters that broadcast to (ROWS, WIDTH // 8), as uint32 (ROWS, WIDTH).

    Number 2 i of a draw is the low half of its word i, number 2 i + 1 the high half.
    """
    x0, x1, x2, x3 = words_of(c0, c1, c2, c3, seed)
    words = tl.join(tl.join(x0, x2), tl.join(x1, x3))  # (ROWS, WIDTH // 8, 2, 2), word 2 a + b at [..., a, b]
    return tl.reshape(tl.join(words & 0xFFFF, words >> 16), (ROWS, WIDTH))


@triton.jit
def words_of(c0, c1, c2, c3, seed):
    """The four words of Philox 4x32-10 at counters that broadcast together, whose key are the halves of a seed."""
    MULTIPLIER_0: tl.constexpr = 0xD2511F53
    MULTIPLIER_1: tl.constexpr = 0xCD9E8D57
    WEYL_0: tl.constexpr = 0x9E3779B9
    WEYL_1: tl.constexpr = 0xBB67AE85
    k0 = seed.to(tl.uint32)
    k1 = (seed >> 32).to(tl.uint32)
    for _ in tl.static_range(10):
        high_0 = tl.umulhi(c0, MULTIPLIER_0)
        high_1 = tl.umulhi(c2, MULTIPLIER_1)
        low_0 = tl.mul(c0, MULTIPLIER_0, sanitize_overflow=False)
        low_1 = tl.mul(c2, MULTIPLIER_1, sanitize_overflow=False)
        c0 = high_1 ^ c1 ^ k0
        c2 = high_0 ^ c3 ^ k1
        c1 = low_1
        c3 = low_0
        k0 = tl.add(k0, WEYL_0, sanitize_overflow=False)
        k1 = tl.add(k1, WEYL_1, sanitize_overflow=False)
    return c0, c1, c2, c3


@triton.jit
def factors_of(numbers, rate):
    """0 or 1 / (1 - rate), float32, of 16-bit numbers: 0 below min(round(rate * 2**16), 2**16 - 1)."""
    scaled = rate * 65536.0
    low = scaled.to(tl.int32)
    rest = scaled - low.to(tl.float32)
    # A half goes to the even neighbour, as in torch.
    threshold = low + ((rest > 0.5) | ((rest == 0.5) & (low % 2 == 1))).to(tl.int32)
    threshold = tl.where(threshold > 65535, 65535, threshold)
    # Rounded as by torch: the division sign is a little less exact on a GPU.
    scale = tl.div_rn(1.0, 1.0 - rate)
    return tl.where(numbers.to(tl.int32) >= threshold, scale, 0.0)
