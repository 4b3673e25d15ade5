"""Whether a method is at most so much worse than another: the claim behind "as good, at 3 % of the parameters"."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from orchestrator.analysis.statistics.checked import fraction
from orchestrator.analysis.statistics.intervals import mean, standard_error, student_quantile


@dataclass(frozen=True, kw_only=True)
class NonInferiority:
    """What `non_inferiority` found."""

    difference: float  # of the method to the reference; negative is worse
    lower_bound: float | None  # of the difference, one-sided; None where the spread is unknown
    margin: float
    holds: bool | None  # whether the bound is above -margin; None where there is no bound
    p_value: float | None  # of the null hypothesis that the method is worse by the margin or more


def non_inferiority(differences: npt.ArrayLike, margin: float, *, confidence: float = 0.95) -> NonInferiority:
    """Of `(n,)` paired differences (method less reference, over tasks or seeds), whether the method is no worse.

    The lower bound is one-sided, mean - t * standard error, with the quantile `confidence` of Student's distribution at
    n - 1 degrees of freedom. The method is non-inferior where the bound is above -margin, with margin > 0 in the unit
    of the differences and chosen before looking. It assumes independent differences, close to normal. A claim about
    tasks needs differences over tasks; differences over seeds of one task are about that task alone.

    One difference has no spread, so no bound and no answer. Source: Piaggio et al. (2012), CONSORT extension.
    """
    freedom = np.size(differences) - 1
    return non_inferiority_of(mean(differences), standard_error(differences), freedom, margin, confidence)


def non_inferiority_of(
    difference: float, error: float | None, degrees_of_freedom: float, margin: float, confidence: float = 0.95
) -> NonInferiority:
    """As `non_inferiority`, of an estimated difference with its standard error and the degrees of freedom of that."""
    fraction(confidence, "confidence")
    if not (math.isfinite(margin) and margin > 0):
        raise ValueError(f"margin: must be a number > 0, but got {margin!r}")
    if error is None:
        return NonInferiority(difference=difference, lower_bound=None, margin=margin, holds=None, p_value=None)
    bound = difference - student_quantile(degrees_of_freedom, confidence) * error
    if error > 0:
        from scipy.special import stdtr

        p_value = float(stdtr(degrees_of_freedom, -(difference + margin) / error))
    else:
        p_value = 0.0 if difference > -margin else 1.0
    return NonInferiority(
        difference=difference, lower_bound=bound, margin=margin, holds=bound > -margin, p_value=p_value
    )
