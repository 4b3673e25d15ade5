"""Which hyperparameters the score depends on: functional analysis of variance, through Optuna.

The second of two doors to Optuna: the other, `orchestrator.scheduling.samplers`, is above this room and comes with Ray.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from orchestrator.analysis.statistics.checked import matrix


@dataclass(frozen=True, kw_only=True)
class Importance:
    """The share of the score's variance that one hyperparameter explains on its own, as a share of all of them."""

    name: str
    mean: float  # over seeds; those of all hyperparameters add up to 1
    spread: float | None  # standard deviation (ddof = 1) over seeds; None of one
    by_seed: tuple[float, ...]


def importance(
    values: Mapping[str, Sequence[Any]], scores: npt.ArrayLike, *, seed: int = 0, num_trees: int = 64
) -> list[Importance]:
    """fANOVA importance of each hyperparameter, the most important first.

    `values` hold, by the name of a hyperparameter, its value in each of num_configs configurations (numbers, texts or
    booleans; None is a value of its own); `scores` are `(num_seeds, num_configs)`. For each seed a random forest is
    fitted to its scores, and the variance of its prediction over the space is split among the hyperparameters. So the
    spread holds both the noise of training and that of the forest, whose chance comes from `seed` and the seed's place.
    Numbers that are all positive and span at least a factor of ten enter by their logarithm.

    Importances are of the space that was searched and of nothing else: a wider range makes a hyperparameter more
    important. One that has a single value is left out. Source: Hutter, Hoos and Leyton-Brown (2014), as
    `optuna.importance.FanovaImportanceEvaluator` computes it.

    Raises `ValueError` with fewer than four configurations, where no hyperparameter varies, or where lengths differ.
    """
    by_seed = matrix(scores)
    num_seeds, num_configs = by_seed.shape
    varying = {name: list(column) for name, column in values.items() if len(set(column)) > 1}
    if wrong := [name for name, column in values.items() if len(column) != num_configs]:
        raise ValueError(f"values: each must have {num_configs} entries, one a configuration, but not so {wrong}")
    if num_configs < 4 or not varying:
        raise ValueError("importance needs at least four configurations and a hyperparameter that varies among them")
    if len(varying) == 1:  # which explains everything that is explained
        found = [{next(iter(varying)): 1.0}] * num_seeds
    else:
        found = [_fanova(varying, row, seed + place, num_trees) for place, row in enumerate(by_seed)]
    rows = []
    for name in varying:
        shares = [each[name] for each in found]
        spread = float(np.std(shares, ddof=1)) if num_seeds > 1 else None
        rows.append(Importance(name=name, mean=float(np.mean(shares)), spread=spread, by_seed=tuple(shares)))
    return sorted(rows, key=lambda row: -row.mean)


def spans_a_decade(numbers: Sequence[float]) -> bool:
    """Whether numbers are positive and the largest is at least ten times the smallest, as 3e-5 and 3e-4 are.

    To one part in a billion: 10 * 3e-5 is a little more than 3e-4.
    """
    return min(numbers) > 0 and max(numbers) / min(numbers) > 10 - 1e-8


def _fanova(values: Mapping[str, list[Any]], scores: np.ndarray, seed: int, num_trees: int) -> dict[str, float]:
    if np.ptp(scores) == 0:  # nothing to explain, which Optuna would divide by
        return dict.fromkeys(values, 1 / len(values))
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    columns = {name: _encode(column) for name, column in values.items()}
    study = optuna.create_study(direction="maximize")
    study.add_trials(
        [
            optuna.trial.create_trial(
                params={name: column[index] for name, (column, _) in columns.items()},
                distributions={name: domain for name, (_, domain) in columns.items()},
                value=float(score),
            )
            for index, score in enumerate(scores)
        ]
    )
    evaluator = optuna.importance.FanovaImportanceEvaluator(n_trees=num_trees, seed=seed)
    return dict(optuna.importance.get_param_importances(study, evaluator=evaluator))


def _encode(column: list[Any]) -> tuple[list[Any], Any]:
    """The values as Optuna takes them, with their domain: a range of numbers, or a choice among whatever else."""
    from optuna.distributions import CategoricalDistribution, FloatDistribution

    if all(isinstance(value, int | float) and not isinstance(value, bool) for value in column):
        numbers = [float(value) for value in column]
        low, high = min(numbers), max(numbers)
        return numbers, FloatDistribution(low, high, log=spans_a_decade(numbers))
    return column, CategoricalDistribution(sorted(set(column), key=lambda value: (value is None, str(value))))
