from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from orchestrator.analysis.statistics.calibration import expected_calibration_error, reliability


def two_classes(confidence: Any) -> np.ndarray:
    return np.stack([confidence, 1 - np.asarray(confidence)], axis=1)


@pytest.mark.parametrize("num_bins", [5, 10, 15])
def test_it_is_the_sum_over_bins_written_out(num_bins: int) -> None:
    rng = np.random.default_rng(num_bins)
    probabilities, labels = rng.dirichlet([1, 1, 1], 300), rng.integers(0, 3, 300)
    confidence, right = probabilities.max(axis=1), probabilities.argmax(axis=1) == labels
    total = 0.0
    for index in range(num_bins):
        inside = (confidence > index / num_bins) & (confidence <= (index + 1) / num_bins)
        if inside.any():
            total += inside.mean() * abs(right[inside].mean() - confidence[inside].mean())
    assert expected_calibration_error(probabilities, labels, num_bins=num_bins) == pytest.approx(total)


def test_a_classifier_that_is_right_as_often_as_it_says_has_almost_none() -> None:
    rng = np.random.default_rng(0)
    confidence = rng.uniform(0.5, 1, 20_000)
    labels = (rng.random(20_000) > confidence).astype(int)
    assert expected_calibration_error(two_classes(confidence), labels) < 0.01
    assert expected_calibration_error(two_classes(confidence), 1 - labels) > 0.4


def test_equal_mass_fills_every_bin_alike() -> None:
    confidence = np.concatenate([np.full(5, 0.99), np.linspace(0.5, 0.6, 15)])
    found = reliability(two_classes(confidence), np.zeros(20), num_bins=4, binning="equal_mass")
    assert found.num_rows.tolist() == [5, 5, 5, 5]
    assert found.confidence[-1] == pytest.approx(0.99)
    assert found.accuracy.tolist() == [1.0] * 4


def test_bins_are_closed_above() -> None:
    found = reliability(two_classes([0.6, 0.60001]), [0, 0], num_bins=5)
    assert found.num_rows.tolist() == [1, 1]


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ({"num_bins": 0}, "num_bins: must be >= 1"),
        ({"binning": "adaptive"}, "'equal_width' or 'equal_mass'"),
        ({"probabilities": [[0.5, 0.6]]}, "add up to 1"),
        ({"labels": [0, 1]}, "as many rows, but got 1 and 2"),
    ],
)
def test_what_is_no_distribution_is_refused(arguments: dict[str, Any], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        expected_calibration_error(**{"probabilities": [[0.5, 0.5]], "labels": [0], **arguments})
