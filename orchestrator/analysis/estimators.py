"""The statistics behind every reported number: pure functions of arrays, each with its definition.

Scores come as one-dimensional arrays, `(num_seeds,)` for the replicates of one configuration or `(num_tasks,)` for
one point of a curve, in whatever unit they were measured; answers have that unit. Nothing here is random, and nothing
depends on the order of the scores: sums are correctly rounded, so two configurations with the same scores tie exactly.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt


def mean(scores: npt.ArrayLike) -> float:
    """The arithmetic mean of `(n,)` scores, n >= 1. Raises `ValueError` on none, or on one that is not finite."""
    values = _finite(scores)
    return math.fsum(values) / len(values)


def standard_error(scores: npt.ArrayLike) -> float | None:
    """The standard error of the mean of `(n,)` scores: sample standard deviation (ddof = 1) over sqrt(n).

    None where n = 1, since one score says nothing about its spread. Raises `ValueError` as `mean` does.
    """
    values = _finite(scores)
    n = len(values)
    if n < 2:
        return None
    centre = mean(values)
    return math.sqrt(math.fsum((value - centre) ** 2 for value in values) / (n - 1) / n)


def t_interval(scores: npt.ArrayLike, *, confidence: float = 0.95) -> tuple[float, float] | None:
    """The two-sided Student interval of the mean of `(n,)` scores: mean -+ t * standard error.

    t is the quantile (1 + confidence) / 2 of Student's distribution with n - 1 degrees of freedom. The interval covers
    the mean over seeds with probability `confidence` where scores are close to normal; it says nothing about other
    tasks or other splits. None where n = 1. Raises `ValueError` as `mean` does, or unless 0 < confidence < 1.
    """
    if not 0 < confidence < 1:
        raise ValueError(f"confidence: must be in (0, 1), but got {confidence!r}")
    error = standard_error(scores)
    if error is None:
        return None
    from scipy.special import stdtrit  # loaded when first asked for: reading a table needs no scipy

    half_width = float(stdtrit(np.size(scores) - 1, (1 + confidence) / 2)) * error
    centre = mean(scores)
    return centre - half_width, centre + half_width


def percentiles(scores: npt.ArrayLike, quantiles: Sequence[float]) -> list[float]:
    """The quantiles, each in [0, 1], of `(n,)` scores, n >= 1; as many answers as quantiles, in their order.

    Interpolates linearly between order statistics, with the quantile q at rank q * (n - 1) counted from 0: type 7 of
    Hyndman and Fan (1996), the default of numpy and R. Raises `ValueError` as `mean` does, or outside [0, 1].
    """
    return [float(value) for value in np.quantile(np.asarray(_finite(scores)), quantiles, method="linear")]


def _finite(scores: npt.ArrayLike) -> list[float]:
    values = np.asarray(scores, dtype=np.float64)
    if values.ndim != 1 or not values.size or not np.isfinite(values).all():
        raise ValueError(f"scores: must be a one-dimensional, non-empty array of finite numbers, but got {values!r}")
    return list(values.tolist())
