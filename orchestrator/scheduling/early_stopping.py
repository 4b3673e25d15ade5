"""Early stopping by Ray Tune's own trial schedulers, one of them for each task, fold, backbone and method.

Scores of different tasks cannot be compared, so each task's trials are judged among themselves. So are each method's
and each backbone's: how much accuracy a method buys is what a sweep asks, and what learns slowly must not be pruned
away altogether. Folds are validated on different rows, so each fold's trials are judged by themselves too. To add a
rule, write its values in `orchestrator/spec/early_stopping.py` and what follows it here.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Literal, NamedTuple, Protocol, cast

import numpy as np
from ray.tune.experiment import Trial
from ray.tune.schedulers import AsyncHyperBandScheduler, FIFOScheduler, MedianStoppingRule, TrialScheduler

from orchestrator.record import TrialRecord
from orchestrator.scheduling.trial import EPOCH, SCORE
from orchestrator.spec.early_stopping import Rule
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


_Group = tuple[str, str, str, int | None]  # task, backbone, method, fold


class PerMethod(FIFOScheduler):
    """Starts trials in the order in which they come, and lets a judge of their kind prune them.

    Of a kind are those of one task, backbone, method and fold.

    Args:
        make: makes the judge of a task's trials, from the task's mode and the most epochs of any of them.
        longest: the most epochs that any trial of a task trains, by the task's reference.
    """

    def __init__(self, make: Callable[[Mode, int], Judge], longest: Mapping[str, int]) -> None:
        super().__init__()
        self._make = make
        self._longest = longest
        self._judges: dict[_Group, Judge] = {}
        self._earlier: dict[_Group, list[TrialRecord]] = {}

    def feed(self, records: Iterable[TrialRecord]) -> None:
        """Judge later trials against these earlier ones too; to be called before the first trial is added."""
        for record in records:
            if record.epochs:
                group = (record.task, record.backbone, record.method, record.fold)
                self._earlier.setdefault(group, []).append(record)

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
        return "\n".join(
            f"{' '.join(names)}{'' if fold is None else f' fold {fold}'}: {judge.debug_string()}"
            for (*names, fold), judge in self._judges.items()
        )

    def _of(self, trial: Trial) -> Judge:
        reference, backbone, method = (trial.config[name] for name in ("task", "backbone", "method"))
        group: _Group = (reference, backbone, method, trial.config["fold"])
        if group not in self._judges:
            info = tasks.describe(reference)
            judge = self._make(metrics.get(info.metric).mode, self._longest[reference])
            for record in self._earlier.pop((info.name, *group[1:]), []):
                judge.feed(record.trial_id, [{EPOCH: e.epoch, SCORE: e.validation_score} for e in record.epochs])
            self._judges[group] = judge
        return self._judges[group]


def trial_scheduler(rule: Rule | str, longest: Mapping[str, int]) -> PerMethod | None:
    """What prunes trials; None where nothing does. `longest` holds the most epochs of any trial, by task reference."""
    if isinstance(rule, str):
        return None
    return PerMethod(lambda mode, most: _judge(rule, mode, most), longest)


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
    """Tune's median rule, in which each epoch of a trial counts once, also where it lost its engine and began anew."""

    def on_trial_result(self, tune_controller: Any, trial: Any, result: Any) -> str:
        self._forget_from(trial, result[EPOCH])
        return super().on_trial_result(tune_controller, trial, result)

    def on_trial_complete(self, tune_controller: Any, trial: Any, result: Any) -> None:
        self._forget_from(trial, result[EPOCH])
        super().on_trial_complete(tune_controller, trial, result)

    def _forget_from(self, trial: Any, epoch: int) -> None:
        self._results[trial] = [earlier for earlier in self._results[trial] if earlier[EPOCH] < epoch]

    def feed(self, trial_id: str, epochs: Epochs) -> None:
        for epoch in epochs:  # told as the ends of trials are, on which it passes no verdict
            self.on_trial_complete(cast(Any, None), cast(Trial, _Judged(trial_id)), dict(epoch))


class _Own:
    """A judge whose rule says itself who is pruned."""

    def __init__(self, rule: Rule, mode: Mode) -> None:
        self._rule = rule
        self._sign = 1 if mode == "max" else -1
        self._scores: dict[str, list[float]] = {}  # of every trial, also when it has ended

    def on_trial_add(self, tune_controller: Any, trial: Any) -> None:
        self._scores[trial.trial_id] = []

    def on_trial_error(self, tune_controller: Any, trial: Any) -> None:
        self._scores.pop(trial.trial_id, None)

    def on_trial_result(self, tune_controller: Any, trial: Any, result: Any) -> str:
        mine = self._scores.setdefault(trial.trial_id, [])
        # A trial that lost its engine counts its epochs from the first again, and Tune does not say that it began anew.
        del mine[result[EPOCH] - 1 :]
        mine.append(self._sign * result[SCORE])
        others = (scores for scores in self._scores.values() if scores and scores is not mine)
        return TrialScheduler.STOP if self._rule.prunes(mine, others) else TrialScheduler.CONTINUE

    def on_trial_complete(self, tune_controller: Any, trial: Any, result: Any) -> None:
        """Its last score has been heard."""

    def on_trial_remove(self, tune_controller: Any, trial: Any) -> None:
        """What it scored stays, for others to be compared with."""

    def debug_string(self) -> str:
        return f"{self._rule} over {len(self._scores)} trials"

    def feed(self, trial_id: str, epochs: Epochs) -> None:
        self._scores[trial_id] = [self._sign * epoch[SCORE] for epoch in epochs]


# Tune's schedulers as they can be told of trials of an earlier run, by their own names.
_FOLLOWERS: Mapping[str, Callable[..., Judge]] = {
    "AsyncHyperBandScheduler": _Halving,
    "MedianStoppingRule": _Medians,
}


def _judge(rule: Rule, mode: Mode, longest: int) -> Judge:
    scheduler = rule.tune_scheduler(longest)
    if scheduler is None:
        return _Own(rule, mode)
    return _FOLLOWERS[scheduler.name](time_attr=EPOCH, metric=SCORE, mode=mode, **scheduler.settings)


def _judged(trial: Trial) -> Any:
    return _Judged(trial.config["trial_id"])


def _is_scored(result: Mapping[str, Any]) -> bool:
    return EPOCH in result and SCORE in result


def _scores_of(result: Mapping[str, Any]) -> dict[str, Any]:
    return {EPOCH: result[EPOCH], SCORE: result[SCORE]}
