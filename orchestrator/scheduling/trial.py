"""The Ray Tune trainable: light, reusable, without torch. It hands its TrialConfig to an engine and forwards news."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import ray
from ray import tune
from ray.exceptions import RayError

from trainables.config import TrialConfig
from trainables.outcome import TrialOutcome

# Keys of a result. What Tune's searchers and trial schedulers read is plain numbers; the outcome rides along.
OUTCOME, ENGINE, EPOCH_REPORT = "outcome", "engine", "epoch_report"
EPOCH, SCORE = "epoch", "validation_score"


class Assignment(NamedTuple):
    """What a trial's process has to know of it."""

    config: TrialConfig
    pack_key: str | None  # equal for trials that an engine can train together
    may_be_pruned: bool = False


class EngineTrial(tune.Trainable):
    """One planned trial. Each step waits for an epoch of it; the last brings the outcome."""

    def setup(self, config: dict[str, Any], pool: Any = None, trials: Mapping[str, Assignment] | None = None) -> None:
        self._pool = pool
        self._trials = trials or {}
        self._begin(config["trial_id"])

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Take on another trial in the same process, which is what makes a trial start in milliseconds."""
        self._leave()
        self._begin(new_config["trial_id"])
        return True

    def step(self) -> dict[str, Any]:
        if self._engine is None and not self._enter():
            return {tune.result.DONE: True}  # the sweep was cancelled before this trial began: it stays planned
        try:
            news = ray.get(self._engine.next.remote(self._trial_id))
        except RayError:  # Tune starts the trial again, perhaps in another process
            self._leave(lost=True)
            raise
        if news is None:
            self._leave()
            return {tune.result.DONE: True}
        result: dict[str, Any] = {ENGINE: self._engine_name}
        if isinstance(news, TrialOutcome):
            self._leave()
            last = news.epochs[-1] if news.epochs else None
            result |= {tune.result.DONE: True, OUTCOME: news}
        else:
            last = news
            result |= {EPOCH_REPORT: news}
        if last is not None:
            result |= {EPOCH: last.epoch, SCORE: last.validation_score}
        return result

    def cleanup(self) -> None:
        self._leave()

    def _begin(self, trial_id: str) -> None:
        self._trial_id = trial_id
        self._engine: Any = None
        self._engine_name: str | None = None

    def _enter(self) -> bool:
        """Start training on an engine; False where none is lent any more."""
        config, pack_key, may_be_pruned = self._trials[self._trial_id]
        self._engine = ray.get(self._pool.acquire.remote(self._trial_id, pack_key))
        if self._engine is None:
            return False
        try:
            self._engine_name = ray.get(self._engine.start.remote(self._trial_id, config, may_be_pruned))
        except RayError:
            self._leave(lost=True)
            raise
        return True

    def _leave(self, *, lost: bool = False) -> None:
        """Give the engine back; the pool ends the trial first where Tune stopped it before its end."""
        if self._engine is not None:
            self._pool.release.remote(self._trial_id, lost=lost)
            self._engine = None
