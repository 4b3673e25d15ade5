"""Arrays as the statistics take them; anything else is refused with a sentence."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

ScoresByTask = Sequence[npt.ArrayLike]


def vector(values: npt.ArrayLike, name: str = "scores") -> np.ndarray:
    """`(n,)` finite numbers, n >= 1. Raises `ValueError` on anything else."""
    array = np.asarray(values, dtype=np.float64)
    if array.ndim != 1 or not array.size or not np.isfinite(array).all():
        raise ValueError(f"{name}: must be a one-dimensional, non-empty array of finite numbers, but got {array!r}")
    return array


def matrix(values: npt.ArrayLike, name: str = "scores") -> np.ndarray:
    """`(m, n)` finite numbers, m and n >= 1. Raises `ValueError` on anything else."""
    array = np.asarray(values, dtype=np.float64)
    if array.ndim != 2 or not array.size or not np.isfinite(array).all():
        raise ValueError(f"{name}: must be a two-dimensional, non-empty array of finite numbers, but got {array!r}")
    return array


def by_task(values: ScoresByTask, name: str = "scores") -> list[np.ndarray]:
    """One `(num_seeds,)` array a task, at least one. Raises `ValueError` on anything else."""
    if not len(values):
        raise ValueError(f"{name}: must hold the scores of at least one task, but got none")
    return [vector(scores, f"{name}[{task}]") for task, scores in enumerate(values)]


def same_length(first: Sequence[object] | np.ndarray, second: Sequence[object] | np.ndarray, what: str) -> None:
    """Raises `ValueError` where two paired arrays do not have as many entries."""
    if len(first) != len(second):
        raise ValueError(f"both sides must have as many {what}, but got {len(first)} and {len(second)}")


def fraction(value: float, name: str) -> float:
    """A number between 0 and 1, both excluded. Raises `ValueError` on anything else."""
    if not 0 < value < 1:
        raise ValueError(f"{name}: must be in (0, 1), but got {value!r}")
    return value
