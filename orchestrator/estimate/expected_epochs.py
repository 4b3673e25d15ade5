"""How many epochs early stopping lets trials train, as far as that can be told before any has a score.

The assumption: scores are in random order, and a trial that is ahead of others at one epoch is ahead of them later.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from orchestrator.spec.early_stopping import Asha, Hyperband, Rule


def has_expectation(rule: Rule | str) -> bool:
    """Whether a rule says how many it stops. The median rule depends on how scores rise, which nobody knows before."""
    return isinstance(rule, Asha)


def expected_epochs(rule: Rule | str, epochs: Sequence[int], longest: int, rng: np.random.Generator) -> list[int]:
    """The epochs that each trial of one task, backbone and method trains, for one random order of their scores.

    `epochs` are the most that each may train, in the order in which they start; `longest` those of any of the task.
    Asynchronous halving (Li et al. 2020): a trial goes on past a rung if it is among the best 1 / `reduction_factor`
    of those that have come to it, by the quantile of those before it, as Ray Tune counts. A rule without expectation
    stops nobody.
    """
    if not isinstance(rule, Asha):
        return list(epochs)
    brackets = _brackets(rule, longest)
    scores = rng.random(len(epochs))
    # As Ray Tune draws: a bracket with one rung more is e times as likely.
    weights = np.exp([len(rungs) - len(brackets[0]) for rungs in brackets])
    chosen = rng.choice(len(brackets), len(epochs), p=weights / weights.sum())
    trained = list(epochs)
    for place, rungs in enumerate(brackets):
        going = [number for number in range(len(epochs)) if chosen[number] == place]
        for rung in rungs:
            going = _past(rung, going, epochs, scores, rule.reduction_factor, trained)
    return trained


def _past(
    rung: int, going: Sequence[int], epochs: Sequence[int], scores: np.ndarray, factor: float, trained: list[int]
) -> list[int]:
    """Judge those that come to a rung, one after another: who goes on. The others' epochs are set in `trained`."""
    arrived: list[float] = []
    still = []
    for number in going:
        if epochs[number] < rung:
            continue
        cutoff = np.quantile(arrived, 1 - 1 / factor) if arrived else -math.inf
        arrived.append(scores[number])
        if scores[number] >= cutoff or epochs[number] == rung:  # a trial in its last epoch ends by itself
            still.append(number)
        else:
            trained[number] = rung
    return still


def _brackets(rule: Asha, longest: int) -> list[list[int]]:
    """The epochs after which the trials of each bracket are judged, the first one first."""
    most = max(rule.grace_period, rule.max_epochs or longest)
    count = int(math.log(most / rule.grace_period) / math.log(rule.reduction_factor) + 1)
    brackets = min(rule.brackets, count) if isinstance(rule, Hyperband) else 1
    return [[math.ceil(rule.grace_period * rule.reduction_factor**k) for k in range(s, count)] for s in range(brackets)]
