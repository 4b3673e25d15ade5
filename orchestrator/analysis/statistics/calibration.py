"""Whether a classifier is right as often as it says."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from orchestrator.analysis.statistics.checked import matrix, same_length, vector

Binning = Literal["equal_width", "equal_mass"]


@dataclass(frozen=True, kw_only=True)
class Reliability:
    """A reliability diagram as numbers: `(num_filled_bins,)` arrays of the bins that hold any row."""

    bins: np.ndarray  # their numbers, from 1 for the least confident
    confidence: np.ndarray  # mean confidence of the bin's rows
    accuracy: np.ndarray  # share of them that are right
    num_rows: np.ndarray

    @property
    def expected_error(self) -> float:
        """The expected calibration error: the mean over rows of |accuracy - confidence| of their bin."""
        return float((np.abs(self.accuracy - self.confidence) * self.num_rows).sum() / self.num_rows.sum())


def reliability(
    probabilities: npt.ArrayLike, labels: npt.ArrayLike, *, num_bins: int = 15, binning: Binning = "equal_width"
) -> Reliability:
    """How often the predicted class is right, by how sure the classifier was.

    `probabilities` are `(num_rows, num_classes)`, each row adding up to 1; `labels` are `(num_rows,)` class numbers.
    The confidence of a row is its largest probability. `"equal_width"` cuts (0, 1] into `num_bins` intervals, open
    below and closed above; `"equal_mass"` sorts rows by confidence and cuts them into as many runs of almost equal
    length. Raises `ValueError` on rows that do not add up to 1 within 0.01, which half precision keeps.

    Sources: Guo et al. (2017), "On Calibration of Modern Neural Networks", section 2 (equal width, 15 bins); Nixon et
    al. (2019) for equal mass.
    """
    chances, true = matrix(probabilities, "probabilities"), np.asarray(labels)
    same_length(chances, true, "rows")
    if chances.min() < 0 or np.abs(chances.sum(axis=1) - 1).max() > 1e-2:
        raise ValueError("probabilities: each row must hold no negative number and add up to 1")
    return reliability_of(chances.max(axis=1), chances.argmax(axis=1) == true, num_bins=num_bins, binning=binning)


def reliability_of(
    confidence: npt.ArrayLike, right: npt.ArrayLike, *, num_bins: int = 15, binning: Binning = "equal_width"
) -> Reliability:
    """As `reliability`, from the confidence of each of `(num_rows,)` rows and whether its predicted class was right."""
    confidence, right = vector(confidence, "confidence"), np.asarray(right, dtype=bool)
    same_length(confidence, right, "rows")
    if confidence.min() < 0 or confidence.max() > 1 + 1e-2:
        raise ValueError("confidence: each must be in [0, 1]")
    if num_bins < 1:
        raise ValueError(f"num_bins: must be >= 1, but got {num_bins!r}")
    if binning == "equal_width":
        place = np.clip(np.ceil(confidence * num_bins).astype(int) - 1, 0, num_bins - 1)
    elif binning == "equal_mass":
        place = np.empty(len(confidence), dtype=int)
        place[np.argsort(confidence, kind="stable")] = np.arange(len(confidence)) * num_bins // len(confidence)
    else:
        raise ValueError(f"binning: must be 'equal_width' or 'equal_mass', but got {binning!r}")
    counts = np.bincount(place, minlength=num_bins)
    filled = counts > 0
    sums = [np.bincount(place, weights=values, minlength=num_bins)[filled] for values in (confidence, right)]
    return Reliability(
        bins=1 + np.flatnonzero(filled),
        confidence=sums[0] / counts[filled],
        accuracy=sums[1] / counts[filled],
        num_rows=counts[filled],
    )


def expected_calibration_error(
    probabilities: npt.ArrayLike, labels: npt.ArrayLike, *, num_bins: int = 15, binning: Binning = "equal_width"
) -> float:
    """The expected calibration error of `reliability`'s bins, between 0 (right as often as it says) and 1.

    It depends on the binning and is biased upwards with few rows a bin, so compare it only at equal settings.
    """
    return reliability(probabilities, labels, num_bins=num_bins, binning=binning).expected_error
