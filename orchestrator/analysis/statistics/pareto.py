"""The settings between which only taste decides: none of them is both dearer and worse than another."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from orchestrator.analysis.statistics.checked import same_length, vector


def pareto_front(costs: npt.ArrayLike, scores: npt.ArrayLike) -> np.ndarray:
    """Which of `(n,)` settings are on the Pareto front of low cost and high score, as `(n,)` booleans.

    A setting is off the front where another costs no more and scores no less, and one of the two strictly so. Equal
    settings are on it together or not at all. It says nothing about chance: among settings that differ by noise, a
    lucky one is on the front.
    """
    cost, score = vector(costs, "costs"), vector(scores, "scores")
    same_length(cost, score, "settings")
    levels, place = np.unique(cost, return_inverse=True)
    best = np.full(len(levels), -np.inf)  # at each cost
    np.maximum.at(best, place, score)
    best_below = np.concatenate([[-np.inf], np.maximum.accumulate(best)[:-1]])  # at any lower cost
    return np.asarray((score == best[place]) & (score > best_below[place]))
