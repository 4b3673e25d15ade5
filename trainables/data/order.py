"""The order in which rows are trained on, and in which they are evaluated.

Batches are built from row indices alone, so the order of a trial is a function of its seed and the row lengths and can
be known before the first step. Needs no torch.

Suffixes: N rows of a split, T optimizer steps of a trial.
"""

from __future__ import annotations

import numpy as np

WINDOW = 16  # batches whose rows are put in order of length together


def num_steps(n: int, *, batch_size: int, num_epochs: int) -> int:
    """Optimizer steps T of a trial over n rows: max(1, int(n / batch_size * num_epochs)), as adapter-bert counts."""
    return max(1, n * num_epochs // batch_size)


def epoch_ends(n: int, *, batch_size: int, num_epochs: int) -> list[int]:
    """The number of steps after which each epoch ends: T * e / num_epochs, rounded; the last is T.

    Strictly increasing, unless there are fewer steps than epochs.
    """
    steps = num_steps(n, batch_size=batch_size, num_epochs=num_epochs)
    return [max(1, (2 * steps * e + num_epochs) // (2 * num_epochs)) for e in range(1, num_epochs + 1)]


def training_batches(lengths: np.ndarray, *, batch_size: int, num_epochs: int, seed: int) -> list[np.ndarray]:
    """The whole order of a trial: T arrays of `batch_size` row indices, a function of lengths and seed only.

    The rows are a stream of one random permutation after the other, so an epoch meets every row about once (T is
    rounded down, and a batch may straddle two epochs). Rows of similar length share a batch, so that padding is
    small: windows of about 16 batches, counted from the start of an epoch and none reaching over its end, are put in
    order of length and cut into batches. Where in a window the short and the long batches come is shuffled, but the
    same for every seed: trials that train in step, or any number of windows apart, meet batches of similar length.
    """
    n = len(lengths)
    if not n:
        raise ValueError("training_batches: needs at least 1 row, but got 0")
    rng = np.random.Generator(np.random.Philox(seed))
    steps = num_steps(n, batch_size=batch_size, num_epochs=num_epochs)
    passes = -(-steps * batch_size // n)
    stream = np.concatenate([rng.permutation(n) for _ in range(passes)])[: steps * batch_size]
    batches: list[np.ndarray] = []
    start = 0
    for end in epoch_ends(n, batch_size=batch_size, num_epochs=num_epochs):
        while start < end:
            # What is left of an epoch after its last whole window makes that one longer, unless it is long itself.
            size = WINDOW if end - start >= WINDOW + WINDOW // 2 else end - start
            rows = stream[start * batch_size : (start + size) * batch_size]
            ordered = rows[np.argsort(lengths[rows], kind="stable")].reshape(size, batch_size)
            batches += list(ordered[np.random.Generator(np.random.Philox(size)).permutation(size)])
            start += size
    return batches


def evaluation_batches(lengths: np.ndarray, *, max_tokens: int = 16384) -> list[np.ndarray]:
    """Every row exactly once, longest first, in batches of at most `max_tokens` word pieces, padding included.

    Longest first, so that a batch that does not fit into memory fails at once. A row longer than `max_tokens` is a
    batch of its own.
    """
    order = np.argsort(-lengths, kind="stable")
    batches, start = [], 0
    while start < len(order):
        rows = max(1, max_tokens // max(1, int(lengths[order[start]])))
        batches.append(order[start : start + rows])
        start += rows
    return batches
