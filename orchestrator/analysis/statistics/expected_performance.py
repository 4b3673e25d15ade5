"""What a search would have found with a smaller budget: the expected best of n configurations drawn at random."""

from __future__ import annotations

from typing import Literal

import numpy as np
import numpy.typing as npt

from orchestrator.analysis.statistics.checked import same_length, vector

Estimator = Literal["unbiased", "plug_in"]


def expected_best(
    validation: npt.ArrayLike,
    budgets: npt.ArrayLike,
    *,
    reported: npt.ArrayLike | None = None,
    estimator: Estimator = "unbiased",
) -> np.ndarray:
    """The expected score of the best of n configurations on validation, an answer for each n of `(b,)` budgets.

    `validation` are `(num_configs,)` scores of configurations that were drawn independently from the same space, as a
    random search draws them; of a grid, it is what a random order of the grid would have given. With `reported`, other
    scores of the same configurations such as those on test, the answer is the expected reported score of the one that
    is best on validation. Where several tie on validation, each of them is as likely to be picked.

    `"unbiased"` draws n of the N without replacement: the i-th smallest is the best with probability
    C(i - 1, n - 1) / C(N, n), and n <= N. This is the mean over all subsets of size n, an unbiased estimate (Tang et
    al. 2020, "Showing Your Work Doesn't Always Work"). `"plug_in"` draws with replacement: probability
    (i / N)^n - ((i - 1) / N)^n, the estimate of Dodge et al. (2019), "Show Your Work", which Tang et al. show to be too
    low on average; n may exceed N.

    Raises `ValueError` on a budget that is not a whole number >= 1, or above N where it must not be.
    """
    scores = vector(validation, "validation")
    others = scores if reported is None else vector(reported, "reported")
    same_length(scores, others, "configurations")
    sizes = np.atleast_1d(np.asarray(budgets))
    return np.array([chances_of_being_best(scores, size, estimator=estimator) @ others for size in sizes])


def chances_of_being_best(validation: npt.ArrayLike, budget: float, *, estimator: Estimator = "unbiased") -> np.ndarray:
    """How likely each of `(num_configs,)` configurations is the best on validation of `budget` that are drawn.

    These are the weights of `expected_best`, which adds up reported scores by them; they add up to 1. Errors as there.
    """
    scores = vector(validation, "validation")
    total = len(scores)
    if budget != np.floor(budget) or budget < 1:
        raise ValueError(f"budgets: each must be a whole number >= 1, but got {budget!r}")
    if estimator == "unbiased":
        if budget > total:
            raise ValueError(f"budgets: at most the {total} configurations tried, but got {budget!r}")
        by_rank = _without_replacement(total, int(budget))
    elif estimator == "plug_in":
        by_rank = np.diff((np.arange(total + 1) / total) ** budget)
    else:
        raise ValueError(f"estimator: must be 'unbiased' or 'plug_in', but got {estimator!r}")
    order = np.argsort(scores, kind="stable")
    # Of tied configurations each is as likely as the others.
    _, level, counts = np.unique(scores[order], return_inverse=True, return_counts=True)
    chances = np.empty(total)
    chances[order] = (np.bincount(level, weights=by_rank) / counts)[level]
    return chances


def expected_best_by_seconds(
    validation: npt.ArrayLike,
    seconds: npt.ArrayLike,
    budgets_s: npt.ArrayLike,
    *,
    reported: npt.ArrayLike | None = None,
    estimator: Estimator = "unbiased",
) -> np.ndarray:
    """As `expected_best`, for budgets of `(b,)` engine-seconds: n is what fits, budget over mean seconds, rounded down.

    `seconds` are those of all `(num_configs,)` configurations. NaN where not even one fits, and, of the unbiased
    estimate, where more would fit than were tried. Source: Dodge et al. (2019), section 3.2 (average training time).
    """
    scores, spent = vector(validation, "validation"), vector(seconds, "seconds")
    same_length(scores, spent, "configurations")
    if spent.min() < 0 or spent.mean() == 0:
        raise ValueError("seconds: must not be negative, nor all 0")
    # A budget that is a multiple of the mean must not lose its last trial to rounding.
    fitting = np.floor(np.atleast_1d(np.asarray(budgets_s, dtype=np.float64)) / spent.mean() + 1e-9)
    known = (fitting >= 1) & ((fitting <= len(scores)) | (estimator == "plug_in"))
    found = np.full(len(fitting), np.nan)
    if known.any():
        found[known] = expected_best(scores, fitting[known], reported=reported, estimator=estimator)
    return found


def _without_replacement(total: int, size: int) -> np.ndarray:
    """`(total,)` probabilities that the i-th smallest of `total` is the largest of `size` drawn ones."""
    weights = np.zeros(total)
    weights[-1] = size / total
    for i in range(total - 1, size - 1, -1):  # C(i - 1, n - 1) from C(i, n - 1)
        weights[i - 1] = weights[i] * (i - size + 1) / i
    return weights
