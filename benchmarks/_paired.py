"""Paired differences: two sides trained the same trials, so what differs between trials cancels out."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

from orchestrator.analysis.statistics.intervals import t_interval


def paired_difference(ours: Sequence[float], theirs: Sequence[float]) -> tuple[float, tuple[float, float] | None]:
    """The mean over trials of our score minus theirs, with its 95 % Student interval; None of a single trial.

    Both have a score a trial, (n,), in the same order. Raises `ValueError` where they have not as many.
    """
    differences = [our - their for our, their in zip(ours, theirs, strict=True)]
    return statistics.fmean(differences), t_interval(differences)
