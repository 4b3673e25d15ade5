"""What other libraries say of the same scores, and how often a nominal interval covers the truth."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

# Computed once by rliable 1.2.0 (numpy 2.4.6, scipy 1.17.1, arch 7.2.0; its bootstrap draws from numpy's global
# generator, seeded with 0, 20,000 times; 5,000 for the probability of improvement), deepsig 1.2.8 (seed 1, 20,000
# draws) and statsmodels 0.15.0. A list of five (`first`) or four (`second`) runs for each of seven tasks.
GOLDEN: dict[str, Any] = {
    "first": [
        [0.7986, 0.7476, 0.7755, 0.8039, 0.8014],
        [0.8029, 0.8002, 0.82, 0.8161, 0.7731],
        [0.8176, 0.8025, 0.8192, 0.8052, 0.8089],
        [0.8715, 0.8591, 0.8471, 0.8407, 0.8681],
        [0.8665, 0.8588, 0.8707, 0.8521, 0.8475],
        [0.8742, 0.9025, 0.8695, 0.9021, 0.9377],
        [0.8992, 0.9076, 0.9159, 0.9467, 0.869],
    ],
    "second": [
        [0.8068, 0.7912, 0.8004, 0.8072],
        [0.8071, 0.7914, 0.7979, 0.7983],
        [0.8132, 0.8597, 0.8226, 0.815],
        [0.831, 0.8612, 0.8275, 0.8566],
        [0.8447, 0.8626, 0.877, 0.8574],
        [0.8881, 0.8643, 0.8839, 0.8825],
        [0.8747, 0.8758, 0.8935, 0.8909],
    ],
    "iqm": 0.8427105263157896,
    "poi": 0.557142857142857,
    "taus": [0.78, 0.8, 0.82, 0.85, 0.9],
    "profile": [0.9142857142857143, 0.8857142857142857, 0.5714285714285714, 0.4857142857142857, 0.17142857142857143],
    "iqm_percentile_seeds": [0.838721052631579, 0.847178947368421],
    "iqm_bca_seeds": [0.8384663293990091, 0.8468263157894735],
    "iqm_percentile_seeds_and_tasks": [0.8084472368421052, 0.881821052631579],
    "iqm_bca_seeds_and_tasks": [0.8082492930358907, 0.881156430812316],
    "poi_percentile_seeds": [0.42857142857142855, 0.6928571428571428],
    "task_means_first": [0.7854, 0.80246, 0.81068, 0.8573, 0.85912, 0.8972, 0.90768],
    "task_means_second": [0.8014, 0.79868, 0.82762, 0.84407, 0.86042, 0.8797, 0.88373],
    "deepsig_permutation_greater": 0.2715364231788411,
    "p": [0.01, 0.04, 0.03, 0.005, 0.2],
    "statsmodels_holm": [0.04, 0.09, 0.09, 0.025, 0.2],
    "statsmodels_mcnemar_8_21": 0.0241195447742939,
}


@pytest.fixture(scope="session")
def golden() -> dict[str, Any]:
    return GOLDEN


def coverage_of(draw: Callable[[np.random.Generator], tuple[float, float]], truth: float, repeats: int) -> float:
    """How often an interval from fresh data holds the truth."""
    rng = np.random.default_rng(2026)
    found = np.array([draw(rng) for _ in range(repeats)])
    return float(((found[:, 0] <= truth) & (truth <= found[:, 1])).mean())


@pytest.fixture(scope="session")
def coverage() -> Callable[..., float]:
    return coverage_of
