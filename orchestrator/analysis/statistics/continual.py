"""What is left of earlier tasks after later ones: the measures of continual learning, of one matrix of scores.

A matrix is `(T, T)`: row i, column j is the score on the test rows of task j after task i has been trained, tasks in
the order they were trained in. What lies above the diagonal is not looked at: a task has no head before it is trained,
which is also why forward transfer (Lopez-Paz and Ranzato 2017) has no place here. More must be better.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt


def average_scores(matrix: npt.ArrayLike) -> np.ndarray:
    """After each of T tasks the mean score over those trained so far, as `(T,)` numbers; the last is `average_score`.

    A_k of Chaudhry et al. (2018), "Riemannian Walk for Incremental Learning", section 4. Raises `ValueError` on what is
    no matrix of scores.
    """
    scores = _lower(matrix)
    return np.array([scores[task, : task + 1].mean() for task in range(len(scores))])


def average_score(matrix: npt.ArrayLike) -> float:
    """The mean over all tasks after the last one: ACC of Lopez-Paz and Ranzato (2017), "Gradient Episodic Memory for
    Continual Learning", section 2; where scores are accuracies, the average accuracy. Raises as `average_scores`.
    """
    return float(average_scores(matrix)[-1])


def learning_score(matrix: npt.ArrayLike) -> float:
    """The mean over tasks of the score right after each was trained: how well new tasks are learned.

    Learning accuracy of Riemer et al. (2019), "Learning to Learn without Forgetting by Maximizing Transfer and
    Minimizing Interference". Raises as `average_scores`.
    """
    return float(np.diagonal(_lower(matrix)).mean())


def forgetting_by_task(matrix: npt.ArrayLike) -> np.ndarray:
    """Of each task but the last, how far it is below its own best at the end, as `(T - 1,)` numbers.

    The best is over the evaluations before the last one, so a task that the last training improved has a negative
    forgetting: f_j^T of Chaudhry et al. (2018), section 4. Raises as `average_scores`.
    """
    scores = _lower(matrix)
    return np.array([scores[task:-1, task].max() - scores[-1, task] for task in range(len(scores) - 1)])


def forgetting(matrix: npt.ArrayLike) -> float:
    """The mean of `forgetting_by_task`: F_T of Chaudhry et al. (2018), section 4. Lower is better."""
    return float(forgetting_by_task(matrix).mean())


def backward_transfer(matrix: npt.ArrayLike) -> float:
    """The mean over all tasks but the last of the score at the end less the score right after training the task.

    BWT of Lopez-Paz and Ranzato (2017), section 2. What is below zero has been forgotten. Raises as `average_scores`.
    """
    scores = _lower(matrix)
    return float((scores[-1, :-1] - np.diagonal(scores)[:-1]).mean())


def _lower(matrix: npt.ArrayLike) -> np.ndarray:
    """The `(T, T)` scores, T >= 2, finite on and below the diagonal. Raises `ValueError` on anything else."""
    scores = np.asarray(matrix, dtype=np.float64)
    is_square = scores.ndim == 2 and scores.shape[0] == scores.shape[1] >= 2
    if not is_square or not np.isfinite(scores[np.tril_indices(len(scores))]).all():
        raise ValueError(
            f"matrix: must be square, of at least two tasks, and finite on and below the diagonal, but got {scores!r}"
        )
    return scores
