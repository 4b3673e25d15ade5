"""Whether a difference between two methods could be chance: over tasks, over many pairs, over the rows of one task."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from orchestrator.analysis.statistics.checked import fraction, matrix, same_length, vector

Alternative = Literal["two-sided", "greater"]
# Up to so many tasks every assignment of signs is looked at: 2^20 of them.
MOST_EXACT = 20
# Up to so many rows on which two methods differ, the distribution of their sum is computed exactly.
MOST_DISCORDANT = 5_000


@dataclass(frozen=True, kw_only=True)
class SignFlip:
    """What `sign_flip_test` found."""

    p_value: float
    num_tasks: int
    smallest_p: float  # the smallest that so many tasks can give, whatever the differences
    is_exact: bool  # every assignment of signs was looked at


@dataclass(frozen=True, kw_only=True)
class RowComparison:
    """What `paired_bootstrap` found of two models on the rows of one test set."""

    difference: float  # of the first to the second
    low: float
    high: float
    p_value: float


@dataclass(frozen=True, kw_only=True)
class McNemar:
    """What `mcnemar` found of two classifiers on the rows of one test set."""

    p_value: float
    only_first_right: int
    only_second_right: int


def smallest_p(num_tasks: int, alternative: Alternative = "two-sided") -> float:
    """The smallest p-value that a sign-flip test over n tasks can give: 2^(1 - n), or one-sided 2^-n.

    So three tasks cannot go below 0.25 and five not below 0.0625; six tasks are the fewest that can reach 0.05.
    """
    return min(1.0, 2.0 ** ((1 if alternative == "two-sided" else 0) - num_tasks))


def sign_flip_test(
    differences: npt.ArrayLike,
    *,
    alternative: Alternative = "two-sided",
    rng: np.random.Generator | None = None,
    num_resamples: int = 100_000,
) -> SignFlip:
    """The paired permutation test over `(num_tasks,)` differences between two methods.

    Where neither method is better, each task's difference could as well have had the other sign. The p-value is the
    share of all 2^n assignments of signs whose mean is at least as far from 0 as the one observed ("greater": at least
    as high). It assumes that tasks are independent and, under the null hypothesis, that differences are symmetric about
    0; nothing about their shape. Up to `MOST_EXACT` tasks every assignment is looked at and `rng` is not used. Beyond,
    `num_resamples` assignments are drawn with `rng` (needed then), and p is (1 + as extreme) / (1 + drawn), which is
    never 0 (Phipson and Smyth 2010).

    Source: Fisher (1935), section 21; Dror et al. (2018) for language processing. Raises `ValueError` on differences
    that are not finite, or without an `rng` where one is needed.
    """
    values = vector(differences, "differences")
    if alternative not in ("two-sided", "greater"):
        raise ValueError(f"alternative: must be 'two-sided' or 'greater', but got {alternative!r}")
    is_exact = len(values) <= MOST_EXACT
    if is_exact:
        sums = np.zeros(1)
        for value in values:
            sums = np.concatenate([sums + value, sums - value])
    elif rng is None:
        raise ValueError(f"rng: is needed to draw signs for more than {MOST_EXACT} tasks")
    else:
        sums = np.empty(num_resamples)
        for start in range(0, num_resamples, 10_000):
            part = sums[start : start + 10_000]
            part[:] = rng.choice([-1.0, 1.0], size=(len(part), len(values))) @ values
    observed = values.sum()
    if alternative == "two-sided":
        sums, observed = np.abs(sums), abs(observed)
    # Sums of the same numbers in another order differ in their last digits and are ties all the same.
    as_extreme = int((sums >= observed - 1e-12 * np.abs(values).sum()).sum())
    p_value = as_extreme / len(sums) if is_exact else (1 + as_extreme) / (1 + len(sums))
    least = smallest_p(len(values), alternative)
    return SignFlip(p_value=p_value, num_tasks=len(values), smallest_p=least, is_exact=is_exact)


def holm(p_values: npt.ArrayLike) -> np.ndarray:
    """The `(m,)` p-values of m tests adjusted for having made m, in the same order, each at most 1.

    The k-th smallest is multiplied by m - k + 1 and raised to the largest adjusted one before it. Calling significant
    what is at most alpha keeps the chance of any false call at alpha, whatever the dependence between the tests.
    Source: Holm (1979).
    """
    values = vector(p_values, "p_values")
    if values.min() < 0 or values.max() > 1:
        raise ValueError(f"p_values: each must be in [0, 1], but got {values!r}")
    order = np.argsort(values, kind="stable")
    adjusted = np.empty_like(values)
    adjusted[order] = np.minimum(np.maximum.accumulate(values[order] * np.arange(len(values), 0, -1)), 1)
    return adjusted


def mcnemar(first_right: npt.ArrayLike, second_right: npt.ArrayLike) -> McNemar:
    """McNemar's exact test of two classifiers on the same `(num_rows,)` rows, from whether each was right.

    Only rows on which exactly one was right count. Where neither classifier is better, which of the two it was is a
    fair coin, so p is that of the two-sided binomial test. It compares two trained models, not two methods: the spread
    over seeds is not in it. Source: McNemar (1947); Dietterich (1998).
    """
    first, second = np.asarray(first_right, dtype=bool), np.asarray(second_right, dtype=bool)
    same_length(first, second, "rows")
    only_first, only_second = int((first & ~second).sum()), int((second & ~first).sum())
    discordant = only_first + only_second
    p_value = 1.0
    if discordant:
        from scipy.stats import binomtest

        p_value = float(binomtest(only_first, discordant, 0.5).pvalue)
    return McNemar(p_value=p_value, only_first_right=only_first, only_second_right=only_second)


def sign_flip_over_rows(first_right: npt.ArrayLike, second_right: npt.ArrayLike) -> float:
    """The p-value of two methods on the same rows, several trained models of each: McNemar's test over all seeds.

    `first_right` and `second_right` are `(num_seeds, num_rows)`, whether each model was right on each row; the numbers
    of seeds may differ. A row counts by the difference of the shares of seeds that got it right. Where neither method
    is better on these models, a row's difference could as well have had the other sign; p is the chance, over all
    assignments of signs, of a sum at least as far from 0. With one seed on either side this is `mcnemar`. Like it, it
    speaks of other rows, and of these trained models alone.

    Exact, by adding up the binomial distributions of rows with differences of equal size; where more rows differ than
    `MOST_DISCORDANT`, by the normal distribution with the same variance.
    """
    first, second = (matrix(right, "right").astype(np.int64) for right in (first_right, second_right))
    same_length(first[0], second[0], "rows")
    weighted = len(second) * first.sum(axis=0) - len(first) * second.sum(axis=0)
    weighted = weighted[weighted != 0]
    if not weighted.size:
        return 1.0
    sizes, counts = np.unique(np.abs(weighted), return_counts=True)
    divisor = np.gcd.reduce(sizes)
    sizes, observed = sizes // divisor, abs(int(weighted.sum() // divisor))
    if weighted.size > MOST_DISCORDANT:
        return math.erfc(observed / math.sqrt(2 * float((sizes**2 * counts).sum())))
    from scipy.special import gammaln

    chances = np.ones(1)
    for size, count in zip(sizes.tolist(), counts.tolist(), strict=True):
        part = np.zeros(2 * size * count + 1)  # sums from -size * count to size * count
        heads = np.arange(count + 1)
        ways = gammaln(count + 1) - gammaln(heads + 1) - gammaln(count - heads + 1)
        part[:: 2 * size] = np.exp(ways - count * math.log(2))
        chances = np.convolve(chances, part)
    sums = np.arange(len(chances)) - len(chances) // 2
    return min(1.0, float(chances[np.abs(sums) >= observed].sum()))


def _difference_of_means(first: np.ndarray, second: np.ndarray) -> float:
    return float(first.mean() - second.mean())


def paired_bootstrap(
    first: npt.ArrayLike,
    second: npt.ArrayLike,
    *,
    rng: np.random.Generator,
    statistic: Callable[[np.ndarray, np.ndarray], float] = _difference_of_means,
    confidence: float = 0.95,
    num_resamples: int = 2000,
) -> RowComparison:
    """The difference of two models on the rows of one test set, with a percentile bootstrap over the rows.

    `first` and `second` hold a row of the test set an entry, `(num_rows,)` or `(num_rows, k)`, in the same order; the
    same rows are drawn of both. `statistic` says how much better the first is on some rows; by default the difference
    of means, with which `first` and `second` are whether each row was right (or that as a mean over seeds). For F1 or
    a correlation, give `(num_rows, 2)` arrays of labels and predictions and the difference of that metric.

    The p-value is two-sided: twice the smaller share of resamples at or beyond 0, counted as (1 + k) / (1 + n), at most
    1. Rows are taken as independent; the spread over seeds is in it only as far as entries are means over seeds.
    Source: Efron and Tibshirani (1993), chapter 13; Koehn (2004); Berg-Kirkpatrick et al. (2012).
    """
    fraction(confidence, "confidence")
    ours, theirs = np.asarray(first), np.asarray(second)
    same_length(ours, theirs, "rows")
    found = np.empty(num_resamples)
    for index in range(num_resamples):
        rows = rng.integers(len(ours), size=len(ours))
        found[index] = statistic(ours[rows], theirs[rows])
    low, high = np.quantile(found, [(1 - confidence) / 2, (1 + confidence) / 2])
    # Sums of the same numbers in another order differ in their last digits and are 0 all the same.
    beyond = min(int((found <= 1e-12).sum()), int((found >= -1e-12).sum()))
    p_value = min(1.0, 2 * (1 + beyond) / (1 + num_resamples))
    return RowComparison(difference=statistic(ours, theirs), low=float(low), high=float(high), p_value=p_value)
