"""What a sweep varies: the options and hyperparameters that tell the trials of one method apart, beside task, seed
and fold.

The names of runs and the live display mention these and no others.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from orchestrator.planning.task_method import PlannedTrial, TaskMethod
from orchestrator.spec.space import Domain, is_searched
from trainables.config import HYPERPARAMETERS, Scalar

# method -> the names of what the sweep varies of it, its own options first
Varied = Mapping[str, tuple[str, ...]]


def varied_in_trials(trials: Iterable[PlannedTrial]) -> Varied:
    """What has more than one value among the trials of a method on a backbone."""
    first: dict[tuple[str, str], Mapping[str, Scalar]] = {}
    found: dict[str, dict[str, None]] = {}  # a set that keeps its order
    for trial in trials:
        values = trial.config.hyperparameters()
        reference = first.setdefault((trial.config.method, trial.config.backbone), values)
        names = found.setdefault(trial.config.method, {})
        names |= dict.fromkeys(name for name in {**reference, **values} if _differ(name, reference, values))
    return _ordered(found)


def varied_in_spaces(task_methods: Iterable[TaskMethod]) -> Varied:
    """What a search may give more than one value, or what several entries of `methods` for one method say otherwise."""
    first: dict[str, Mapping[str, Domain | Scalar]] = {}
    found: dict[str, dict[str, None]] = {}
    for task_method in task_methods:
        space = task_method.space
        reference = first.setdefault(task_method.entry.method, space)
        names = found.setdefault(task_method.entry.method, {})
        names |= dict.fromkeys(
            name for name in {**reference, **space} if is_searched(space.get(name)) or _differ(name, reference, space)
        )
    return _ordered(found)


def _differ(name: str, one: Mapping[str, object], other: Mapping[str, object]) -> bool:
    """Whether two mappings disagree in a name; 1 and true do, 1 and 1.0 do not."""
    if (name in one) is not (name in other):
        return True
    return one[name] != other[name] or isinstance(one[name], bool) is not isinstance(other[name], bool)


def _ordered(found: Mapping[str, Iterable[str]]) -> Varied:
    # Sorting is stable: but for options and shared hyperparameters, the names stay in the order in which they came.
    return {method: tuple(sorted(names, key=lambda name: name in HYPERPARAMETERS)) for method, names in found.items()}
