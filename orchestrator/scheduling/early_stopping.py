"""Early stopping by Ray Tune's own trial schedulers, one of them for each task.

Scores of different tasks cannot be compared, so each task's trials are judged among themselves; those of different
methods are judged together, since the question is which is best. To add a rule, write its values in
`orchestrator/stopping.py` and what follows it here.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

from ray.tune.experiment import Trial
from ray.tune.schedulers import ASHAScheduler, FIFOScheduler, MedianStoppingRule, TrialScheduler

from orchestrator.plan import PlannedTrial
from orchestrator.scheduling.trial import EPOCH, SCORE
from orchestrator.stopping import Asha, Median, Rule
from trainables import metrics, tasks

Mode = Literal["min", "max"]


class PerTask(FIFOScheduler):
    """Starts trials in the order of the plan, and lets each task's own scheduler judge them.

    Args:
        task_of: the task of each planned trial, by trial_id.
        schedulers: what judges each task's trials.
    """

    def __init__(self, task_of: Mapping[str, str], schedulers: Mapping[str, TrialScheduler]) -> None:
        super().__init__()
        self._task_of = task_of
        self._schedulers = schedulers

    def on_trial_add(self, tune_controller: Any, trial: Trial) -> None:
        self._of(trial).on_trial_add(tune_controller, trial)

    def on_trial_error(self, tune_controller: Any, trial: Trial) -> None:
        self._of(trial).on_trial_error(tune_controller, trial)

    def on_trial_result(self, tune_controller: Any, trial: Trial, result: dict[str, Any]) -> str:
        if not _is_scored(result):
            return TrialScheduler.CONTINUE
        return self._of(trial).on_trial_result(tune_controller, trial, result)

    def on_trial_complete(self, tune_controller: Any, trial: Trial, result: dict[str, Any]) -> None:
        if _is_scored(result):  # not where it failed or was withdrawn before its first epoch
            self._of(trial).on_trial_complete(tune_controller, trial, result)

    def on_trial_remove(self, tune_controller: Any, trial: Trial) -> None:
        self._of(trial).on_trial_remove(tune_controller, trial)

    def debug_string(self) -> str:
        return "\n".join(f"{task}: {scheduler.debug_string()}" for task, scheduler in self._schedulers.items())

    def _of(self, trial: Trial) -> TrialScheduler:
        return self._schedulers[self._task_of[trial.config["trial_id"]]]


def trial_scheduler(rule: Rule | str, trials: Sequence[PlannedTrial]) -> TrialScheduler | None:
    """What prunes these trials; None where nothing does."""
    if isinstance(rule, str):
        return None
    schedulers = {}
    for reference in dict.fromkeys(trial.config.task for trial in trials):
        longest = max(trial.config.num_epochs for trial in trials if trial.config.task == reference)
        mode = metrics.get(tasks.describe(reference).metric).mode
        schedulers[reference] = SCHEDULERS[type(rule)](rule, mode, longest)
    return PerTask({trial.trial_id: trial.config.task for trial in trials}, schedulers)


def _asha(rule: Asha, mode: Mode, longest: int) -> TrialScheduler:
    return ASHAScheduler(
        time_attr=EPOCH,
        metric=SCORE,
        mode=mode,
        grace_period=rule.grace_period,
        reduction_factor=rule.reduction_factor,
        # A grace period longer than any trial stops nobody.
        max_t=max(rule.grace_period, rule.max_epochs or longest),
        stop_last_trials=False,  # trials end by themselves, with their test scores
    )


def _median(rule: Median, mode: Mode, longest: int) -> TrialScheduler:
    return MedianStoppingRule(
        time_attr=EPOCH,
        metric=SCORE,
        mode=mode,
        grace_period=rule.grace_period,
        min_samples_required=rule.min_trials,
        # Never pause a trial for want of others to judge it by: it would begin anew.
        min_time_slice=math.inf,  # type: ignore[arg-type]
    )


SCHEDULERS: dict[type[Any], Callable[[Any, Mode, int], TrialScheduler]] = {Asha: _asha, Median: _median}


def _is_scored(result: Mapping[str, Any]) -> bool:
    return EPOCH in result and SCORE in result
