"""The Ray Tune trainable: light, reusable, without torch. It hands its TrialConfig to an engine and forwards news."""

from __future__ import annotations

from typing import Any, NamedTuple

import ray
from ray import tune
from ray.exceptions import OutOfMemoryError, RayError

from orchestrator.scheduling.engine_actor import EngineLeavesError, JudgedEpoch
from orchestrator.scheduling.loans import ANYTHING, Wants
from orchestrator.scheduling.pool import TrialGivenUpError
from trainables.config import TrialConfig
from trainables.outcome import OutcomeStatus, TrialOutcome, unstarted

# Keys of a result. What Tune's searchers and trial schedulers read is plain numbers; the outcome rides along.
OUTCOME, ENGINE, EPOCH_REPORT, IF_PRUNED = "outcome", "engine", "epoch_report", "if_pruned"
EPOCH, SCORE = "epoch", "validation_score"


class Assignment(NamedTuple):
    """What a trial's process has to know of it."""

    config: TrialConfig
    pack_key: str | None  # equal for trials that an engine can train together
    wants: Wants = ANYTHING
    may_be_pruned: bool = False
    keep_predictions: bool = False
    keep_weights: bool = False


class EngineTrial(tune.Trainable):
    """One planned trial. Each step waits for an epoch of it; the last brings the outcome.

    A trial whose engine is lost begins anew on another, which the pool refuses where the trial is to blame.
    """

    def setup(self, config: dict[str, Any], pool: Any = None) -> None:
        self._pool = pool
        self._begin(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Take on another trial in the same process, which is what makes a trial start in milliseconds."""
        self._leave()
        self._begin(new_config)
        return True

    def step(self) -> dict[str, Any]:
        while True:
            try:
                if self._engine is None and not self._enter():
                    return {tune.result.DONE: True}  # the sweep was cancelled before this trial began
                news = ray.get(self._engine.next.remote(self._trial_id))
            except TrialGivenUpError as reason:
                return self._result(unstarted(OutcomeStatus.FAILED, str(reason), {}))
            except RayError as error:
                if self._engine is None:
                    raise  # the pool's process is gone: Tune starts the trial again
                self._leave(
                    lost=True,
                    had_notice=isinstance(error, EngineLeavesError),
                    wanted_memory=isinstance(error, OutOfMemoryError),
                )
                continue
            if news is None:
                self._leave()
                return {tune.result.DONE: True}
            return self._result(news)

    def cleanup(self) -> None:
        self._leave()

    def _result(self, news: Any) -> dict[str, Any]:
        result: dict[str, Any] = {ENGINE: self._engine_name} if self._engine_name else {}
        if isinstance(news, TrialOutcome):
            self._leave()
            last = news.epochs[-1] if news.epochs else None
            result |= {tune.result.DONE: True, OUTCOME: news}
        else:
            if isinstance(news, JudgedEpoch):
                news, result[IF_PRUNED] = news
            last = news
            result |= {EPOCH_REPORT: news}
        if last is not None:
            result |= {EPOCH: last.epoch, SCORE: last.validation_score}
        return result

    def _begin(self, config: dict[str, Any]) -> None:
        self._trial_id: str = config["trial_id"]
        self._assignment: Assignment = config["assignment"]
        self._engine: Any = None
        self._engine_name: str | None = None

    def _enter(self) -> bool:
        """Start training on an engine; False where none is lent any more."""
        config, pack_key, wants, *wishes = self._assignment
        self._engine = ray.get(self._pool.acquire.remote(self._trial_id, pack_key, wants))
        if self._engine is None:
            return False
        self._engine_name = ray.get(self._engine.start.remote(self._trial_id, config, *wishes))
        return True

    def _leave(self, *, lost: bool = False, had_notice: bool = False, wanted_memory: bool = False) -> None:
        """Give the engine back; the pool ends the trial first where Tune stopped it before its end."""
        if self._engine is not None:
            self._engine = None
            released = self._pool.release.remote(
                self._trial_id, lost=lost, had_notice=had_notice, wanted_memory=wanted_memory
            )
            if lost:
                ray.get(released)  # whose doing it was must be known before the trial asks for another engine
