"""What choosing costs: the winner of many looks better than it is, and another draw of seeds may choose another."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from orchestrator.analysis.statistics.checked import matrix, same_length, vector


@dataclass(frozen=True, kw_only=True)
class Optimism:
    """How much the winner's validation score promises too much."""

    validation: float  # of the winner
    test: float  # of the winner
    gap: float  # validation less test, of the winner
    average_gap: float  # the same as a mean over all configurations: what the two splits differ by without choosing
    optimism: float  # the gap less the average gap: what choosing added
    num_tried: int


def optimism_of_the_winner(validation: npt.ArrayLike, test: npt.ArrayLike) -> Optimism:
    """Of `(num_configs,)` scores on both splits, how much better the best on validation looks there than on test.

    The best of many noisy scores is partly the luckiest, and more so the more were tried. Test scores took no part in
    the choice, so the winner's are unbiased. Source: Cawley and Talbot (2010). Where several tie, the first is taken.
    """
    seen, unseen = vector(validation, "validation"), vector(test, "test")
    same_length(seen, unseen, "configurations")
    winner = int(np.argmax(seen))
    gap, average = float(seen[winner] - unseen[winner]), float((seen - unseen).mean())
    return Optimism(
        validation=float(seen[winner]),
        test=float(unseen[winner]),
        gap=gap,
        average_gap=average,
        optimism=gap - average,
        num_tried=len(seen),
    )


def highest_mean(scores: np.ndarray) -> np.ndarray:
    """Which one has the highest mean over seeds, of `(..., num_configs, num_seeds)` scores, or the first of them."""
    return np.asarray(scores.mean(axis=-1).argmax(axis=-1))


def selection_stability(
    validation: npt.ArrayLike,
    *,
    rng: np.random.Generator,
    choose: Callable[[np.ndarray], np.ndarray] = highest_mean,
    num_resamples: int = 1000,
) -> np.ndarray:
    """How often each configuration is chosen when the seeds are drawn again, as `(num_configs,)` shares that add to 1.

    `validation` are `(num_configs, num_seeds)` scores; seeds are drawn with replacement within each configuration,
    independently of the others. `choose` takes `(num_resamples, num_configs, num_seeds)` scores and returns the index
    of the chosen configuration for each. The share of the recommended setting says how far to trust the name of the
    winner; a low share among settings of equal score does no harm. With few seeds it is optimistic, as is every
    bootstrap of few values. Source: bootstrap of a ranking, as in Hall and Miller (2009).
    """
    scores = matrix(validation, "validation")
    num_configs, num_seeds = scores.shape
    chosen = np.zeros(num_configs)
    step = max(1, 4_000_000 // scores.size)
    for start in range(0, num_resamples, step):
        size = min(step, num_resamples - start)
        drawn = rng.integers(num_seeds, size=(size, num_configs, num_seeds))
        chosen += np.bincount(choose(np.take_along_axis(scores[None], drawn, axis=2)), minlength=num_configs)
    return chosen / num_resamples
