"""Keeps what Ray Tune remembers of ended trials, and the time it takes for each, from growing with their number.

Tune's controller holds every trial of an experiment, looks through all of them at every step, and starts a process
anew for a trial that is named only once another has ended. None of this can be set, so it is mended where Tune hands
its controller out: to the trial scheduler. What a later version of Tune no longer has is left alone.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ray.exceptions import RayError
from ray.tune.experiment import Trial
from ray.tune.progress_reporter import TrialProgressCallback
from ray.tune.schedulers import FIFOScheduler, TrialScheduler

from orchestrator.scheduling.tune_deaths import outlive_deaths

# How many processes of ended trials wait for the next ones: all there are, which are as many as trials under way.
_PROCESSES = 10_000
# Where Tune's controller holds ended trials.
_HOLDERS = ("_live_trials", "_stopped_trials", "_failed_trials", "_trials_to_cache")


class ForgetEnded(FIFOScheduler):
    """Starts trials in their order, leaves the verdict on them to another scheduler, and forgets those that ended.

    It is who Tune hands its controller to, so the first trial is also when that learns of deaths (`tune_deaths`).

    Args:
        judge: what prunes trials; None where nothing does.
        died: told of the death of a trial's process that Tune would not take for one.
    """

    def __init__(self, judge: TrialScheduler | None, died: Callable[[RayError], None]) -> None:
        super().__init__()
        self._died = died
        self._judge = judge or FIFOScheduler()
        self._ended: list[Trial] = []
        self._knows_controller = False

    def on_trial_add(self, tune_controller: Any, trial: Trial) -> None:
        self._judge.on_trial_add(tune_controller, trial)
        controller = _unwrapped(tune_controller)
        if self._knows_controller:
            return
        self._knows_controller = True
        outlive_deaths(controller, self._died)
        if (cache := getattr(controller, "_actor_cache", None)) is not None:
            cache.increase_max(trial.placement_group_factory, by=_PROCESSES)

    def on_trial_error(self, tune_controller: Any, trial: Trial) -> None:
        self._judge.on_trial_error(tune_controller, trial)
        self._ended.append(trial)

    def on_trial_result(self, tune_controller: Any, trial: Trial, result: dict[str, Any]) -> str:
        return self._judge.on_trial_result(tune_controller, trial, result)

    def on_trial_complete(self, tune_controller: Any, trial: Trial, result: dict[str, Any]) -> None:
        self._judge.on_trial_complete(tune_controller, trial, result)
        self._ended.append(trial)

    def on_trial_remove(self, tune_controller: Any, trial: Trial) -> None:
        self._judge.on_trial_remove(tune_controller, trial)
        self._ended.append(trial)

    def choose_trial_to_run(self, tune_controller: Any, **options: Any) -> Trial | None:
        """Called at every step, when what became of the trials of the last one is settled."""
        if self._ended:
            self._ended = [trial for trial in self._ended if not _forget(_unwrapped(tune_controller), trial)]
        return super().choose_trial_to_run(tune_controller, **options)

    def debug_string(self) -> str:
        return self._judge.debug_string()


class NoProgress(TrialProgressCallback):
    """Stands where Tune would put a callback of its own, which holds every trial and its last results to print them."""

    def __init__(self) -> None:
        """Without what it would hold."""

    def on_trial_start(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None: ...

    def on_trial_result(
        self, iteration: int, trials: list[Trial], trial: Trial, result: dict[str, Any], **info: Any
    ) -> None: ...

    def on_trial_complete(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None: ...

    def on_trial_error(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None: ...


def _unwrapped(tune_controller: Any) -> Any:
    return vars(tune_controller).get("_tune_controller", tune_controller)


def _forget(controller: Any, trial: Trial) -> bool:
    """Have the controller forget a trial that has ended; False where it has not ended yet."""
    if not trial.is_finished():
        return False
    trials = getattr(controller, "_trials", None)
    if isinstance(trials, list) and trial in trials:
        trials.remove(trial)
    for name in _HOLDERS:
        holder = getattr(controller, name, None)
        if isinstance(holder, set):
            holder.discard(trial)
    return True
