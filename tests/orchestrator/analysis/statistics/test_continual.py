"""The measures of continual learning, held against their definitions written out."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.analysis.statistics import continual

NONE = float("nan")
WORKED = [
    [0.9, NONE, NONE],
    [0.6, 0.8, NONE],
    [0.7, 0.85, 0.5],
]
MATRICES = st.integers(2, 7).flatmap(
    lambda size: st.lists(st.lists(st.floats(-1, 1), min_size=size, max_size=size), min_size=size, max_size=size).map(
        np.array
    )
)


def test_a_small_matrix_is_measured_as_by_hand() -> None:
    assert continual.average_scores(WORKED) == pytest.approx([0.9, 0.7, 2.05 / 3])
    assert continual.average_score(WORKED) == pytest.approx(2.05 / 3)
    assert continual.learning_score(WORKED) == pytest.approx(2.2 / 3)
    # The second task was never better before the end than right after training, and is better at the end.
    assert continual.forgetting_by_task(WORKED) == pytest.approx([0.2, -0.05])
    assert continual.forgetting(WORKED) == pytest.approx(0.075)
    assert continual.backward_transfer(WORKED) == pytest.approx((-0.2 + 0.05) / 2)


@given(MATRICES)
def test_measures_are_those_of_their_papers(scores: np.ndarray) -> None:
    last = len(scores) - 1  # k, counted from 0
    transfer = sum(scores[last, i] - scores[i, i] for i in range(last)) / last
    forgotten = sum(max(scores[k, j] for k in range(j, last)) - scores[last, j] for j in range(last)) / last
    assert continual.backward_transfer(scores) == pytest.approx(transfer)
    assert continual.forgetting(scores) == pytest.approx(forgotten)
    assert continual.average_score(scores) == pytest.approx(sum(scores[last]) / (last + 1))
    assert continual.forgetting(scores) >= -continual.backward_transfer(scores) - 1e-12


@given(MATRICES)
def test_columns_that_stay_as_they_are_have_nothing_forgotten(scores: np.ndarray) -> None:
    constant = np.tile(np.diagonal(scores), (len(scores), 1))
    assert continual.forgetting(constant) == 0
    assert continual.backward_transfer(constant) == 0
    assert continual.average_score(constant) == continual.learning_score(constant)


@pytest.mark.parametrize(
    "matrix", [[], [[1.0]], [[1.0, 2.0]], [[1.0, NONE], [NONE, 1.0]], [[NONE, 0.0], [1.0, 1.0]], [1.0, 2.0]]
)
@pytest.mark.parametrize(
    "measure",
    [
        continual.average_score,
        continual.average_scores,
        continual.learning_score,
        continual.forgetting,
        continual.backward_transfer,
    ],
)
def test_what_is_no_matrix_of_scores_is_refused(measure: Callable[..., object], matrix: list[object]) -> None:
    with pytest.raises(ValueError, match="must be square, of at least two tasks"):
        measure(matrix)
