"""Early stopping by Ray Tune's own trial schedulers, one of them for each task and method.

Scores of different tasks cannot be compared, so each task's trials are judged among themselves. So are each method's:
how much accuracy a method buys is what a sweep asks, and a method that learns slowly must not be pruned away
altogether. To add a rule, write its values in `orchestrator/spec/early_stopping.py` and what follows it here.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Literal, NamedTuple, Protocol, cast

import numpy as np
from ray.tune.experiment import Trial
from ray.tune.schedulers import AsyncHyperBandScheduler, FIFOScheduler, MedianStoppingRule, TrialScheduler

from orchestrator.record import TrialRecord
from orchestrator.scheduling.trial import EPOCH, SCORE
from orchestrator.spec.early_stopping import Asha, Hyperband, Median, Rule
from trainables import metrics, tasks

Mode = Literal["min", "max"]
Epochs = Sequence[Mapping[str, float]]  # of one trial: EPOCH and SCORE of each, in their order


class Judge(Protocol):
    """A trial scheduler of Tune's that can be told of trials of an earlier run."""

    def on_trial_add(self, tune_controller: Any, trial: Any) -> None: ...

    def on_trial_error(self, tune_controller: Any, trial: Any) -> None: ...

    def on_trial_result(self, tune_controller: Any, trial: Any, result: Any) -> str: ...

    def on_trial_complete(self, tune_controller: Any, trial: Any, result: Any) -> None: ...

    def on_trial_remove(self, tune_controller: Any, trial: Any) -> None: ...

    def debug_string(self) -> str: ...

    def feed(self, trial_id: str, epochs: Epochs) -> None:
        """Compare later trials with this one too."""


class _Judged(NamedTuple):
    """All that a judge needs to know of a trial, and so all that it keeps of one: the id it was planned under."""

    trial_id: str


class PerMethod(FIFOScheduler):
    """Starts trials in the order in which they come, and lets a judge of their task and method prune them.

    Args:
        make: makes the judge of a task's trials, from the task's mode and the most epochs of any of them.
        longest: the most epochs that any trial of a task trains, by the task's reference.
    """

    def __init__(self, make: Callable[[Mode, int], Judge], longest: Mapping[str, int]) -> None:
        super().__init__()
        self._make = make
        self._longest = longest
        self._judges: dict[tuple[str, str], Judge] = {}
        self._earlier: dict[tuple[str, str], list[TrialRecord]] = {}

    def feed(self, records: Iterable[TrialRecord]) -> None:
        """Judge later trials against these earlier ones too; to be called before the first trial is added."""
        for record in records:
            if record.epochs:
                self._earlier.setdefault((record.task, record.method), []).append(record)

    def on_trial_add(self, tune_controller: Any, trial: Trial) -> None:
        self._of(trial).on_trial_add(tune_controller, _judged(trial))

    def on_trial_error(self, tune_controller: Any, trial: Trial) -> None:
        self._of(trial).on_trial_error(tune_controller, _judged(trial))

    def on_trial_result(self, tune_controller: Any, trial: Trial, result: dict[str, Any]) -> str:
        if not _is_scored(result):
            return TrialScheduler.CONTINUE
        return self._of(trial).on_trial_result(tune_controller, _judged(trial), _scores_of(result))

    def on_trial_complete(self, tune_controller: Any, trial: Trial, result: dict[str, Any]) -> None:
        if _is_scored(result):  # not where it failed or was withdrawn before its first epoch
            self._of(trial).on_trial_complete(tune_controller, _judged(trial), _scores_of(result))

    def on_trial_remove(self, tune_controller: Any, trial: Trial) -> None:
        self._of(trial).on_trial_remove(tune_controller, _judged(trial))

    def debug_string(self) -> str:
        return "\n".join(f"{' '.join(group)}: {judge.debug_string()}" for group, judge in self._judges.items())

    def _of(self, trial: Trial) -> Judge:
        reference, method = trial.config["task"], trial.config["method"]
        if (reference, method) not in self._judges:
            info = tasks.describe(reference)
            judge = self._make(metrics.get(info.metric).mode, self._longest[reference])
            for record in self._earlier.pop((info.name, method), []):
                judge.feed(record.trial_id, [{EPOCH: e.epoch, SCORE: e.validation_score} for e in record.epochs])
            self._judges[reference, method] = judge
        return self._judges[reference, method]


def trial_scheduler(rule: Rule | str, longest: Mapping[str, int]) -> PerMethod | None:
    """What prunes trials; None where nothing does. `longest` holds the most epochs of any trial, by task reference."""
    if isinstance(rule, str):
        return None
    make = SCHEDULERS[type(rule)]
    return PerMethod(lambda mode, most: make(rule, mode, most), longest)


class _Halving(AsyncHyperBandScheduler):
    """Tune's asynchronous halving, in which a trial falls into the same bracket whenever it is added.

    Not Tune's synchronous HyperBand: that one pauses trials until those it compares them with have come as far, and a
    paused trial would leave its engine and begin anew.
    """

    def on_trial_add(self, tune_controller: Any, trial: Any) -> None:
        super().on_trial_add(tune_controller, trial)
        if len(self._brackets) > 1:
            # Tune draws a bracket by chance, the likelier the more rungs it has; here the trial's identity decides, as
            # it must for trials of an earlier run to be compared with those that they were compared with then.
            sizes = np.array([len(bracket._rungs) for bracket in self._brackets])
            shares = np.exp(sizes - sizes.max())
            drawn = int.from_bytes(hashlib.sha256(trial.trial_id.encode()).digest()[:8], "big") / 2**64
            index = int(np.searchsorted(np.cumsum(shares / shares.sum()), drawn, side="right"))
            self._trial_info[trial.trial_id] = self._brackets[min(index, len(sizes) - 1)]

    def on_trial_result(self, tune_controller: Any, trial: Any, result: Any) -> str:
        verdict = super().on_trial_result(tune_controller, trial, result)
        if verdict == TrialScheduler.STOP:
            self._trial_info.pop(trial.trial_id, None)  # it will not be heard of again
        return verdict

    def on_trial_complete(self, tune_controller: Any, trial: Any, result: Any) -> None:
        if trial.trial_id in self._trial_info:
            super().on_trial_complete(tune_controller, trial, result)

    def on_trial_remove(self, tune_controller: Any, trial: Any) -> None:
        self._trial_info.pop(trial.trial_id, None)

    def feed(self, trial_id: str, epochs: Epochs) -> None:
        trial = _Judged(trial_id)
        self.on_trial_add(None, trial)
        for epoch in epochs:  # whatever the verdict is today, the trial went on
            AsyncHyperBandScheduler.on_trial_result(self, cast(Any, None), cast(Trial, trial), dict(epoch))
        self.on_trial_remove(None, trial)


class _Medians(MedianStoppingRule):
    """Tune's median rule."""

    def feed(self, trial_id: str, epochs: Epochs) -> None:
        for epoch in epochs:  # told as the ends of trials are, on which it passes no verdict
            self.on_trial_complete(cast(Any, None), cast(Trial, _Judged(trial_id)), dict(epoch))


def _asha(rule: Asha, mode: Mode, longest: int, brackets: int = 1) -> Judge:
    return _Halving(
        time_attr=EPOCH,
        metric=SCORE,
        mode=mode,
        grace_period=rule.grace_period,
        reduction_factor=rule.reduction_factor,
        # A grace period longer than any trial stops nobody.
        max_t=max(rule.grace_period, rule.max_epochs or longest),
        brackets=brackets,
        stop_last_trials=False,  # trials end by themselves, with their test scores
    )


def _hyperband(rule: Hyperband, mode: Mode, longest: int) -> Judge:
    return _asha(rule, mode, longest, rule.brackets)


def _median(rule: Median, mode: Mode, longest: int) -> Judge:
    return _Medians(
        time_attr=EPOCH,
        metric=SCORE,
        mode=mode,
        grace_period=rule.grace_period,
        min_samples_required=rule.min_trials,
        # Never pause a trial for want of others to judge it by: it would begin anew.
        min_time_slice=math.inf,  # type: ignore[arg-type]
    )


SCHEDULERS: dict[type[Any], Callable[[Any, Mode, int], Judge]] = {Asha: _asha, Hyperband: _hyperband, Median: _median}


def _judged(trial: Trial) -> Any:
    return _Judged(trial.config["trial_id"])


def _is_scored(result: Mapping[str, Any]) -> bool:
    return EPOCH in result and SCORE in result


def _scores_of(result: Mapping[str, Any]) -> dict[str, Any]:
    return {EPOCH: result[EPOCH], SCORE: result[SCORE]}
