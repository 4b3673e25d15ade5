"""The order in which rows are trained on, and in which they are evaluated.

Batches are built from row indices alone, so the order of a trial is a function of its seed and the number of rows and
can be known before the first step. Needs no torch.

Suffixes: N rows of a split, T optimizer steps of a trial.
"""

from __future__ import annotations

import numpy as np


def num_steps(n: int, *, batch_size: int, num_epochs: int) -> int:
    """Optimizer steps T of a trial over n rows: max(1, int(n / batch_size * num_epochs)), as adapter-bert counts."""
    return max(1, n * num_epochs // batch_size)


def epoch_ends(n: int, *, batch_size: int, num_epochs: int) -> list[int]:
    """The number of steps after which each epoch ends: T * e / num_epochs, rounded; the last is T.

    Strictly increasing, unless there are fewer steps than epochs.
    """
    steps = num_steps(n, batch_size=batch_size, num_epochs=num_epochs)
    return [max(1, (2 * steps * e + num_epochs) // (2 * num_epochs)) for e in range(1, num_epochs + 1)]


def training_batches(n: int, *, batch_size: int, num_epochs: int, seed: int) -> list[np.ndarray]:
    """The whole order of a trial: T arrays of `batch_size` row indices, a function of n and the seed only.

    The rows are a stream of one random permutation after the other, so an epoch meets every row about once (T is
    rounded down, and a batch may straddle two epochs). Raises `ValueError` where there is no row.
    """
    if not n:
        raise ValueError("training_batches: needs at least 1 row, but got 0")
    rng = np.random.Generator(np.random.Philox(seed))
    steps = num_steps(n, batch_size=batch_size, num_epochs=num_epochs)
    passes = -(-steps * batch_size // n)
    stream = np.concatenate([rng.permutation(n) for _ in range(passes)])[: steps * batch_size]
    return list(stream.reshape(steps, batch_size))


def evaluation_batches(lengths: np.ndarray, *, max_tokens: int = 16384) -> list[np.ndarray]:
    """Every row exactly once, longest first, in batches of at most `max_tokens` word pieces.

    Longest first, so that a batch that does not fit into memory fails at once, and so that sequences of a batch are of
    similar length. A row longer than `max_tokens` is a batch of its own.
    """
    order = np.argsort(-lengths, kind="stable")
    ends = np.cumsum(lengths[order])
    batches, start = [], 0
    while start < len(order):
        before = ends[start - 1] if start else 0
        stop = max(start + 1, int(np.searchsorted(ends, before + max_tokens, side="right")))
        batches.append(order[start:stop])
        start = stop
    return batches
