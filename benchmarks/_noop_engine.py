"""An engine that answers every trial at once, with scores that mean nothing."""

from __future__ import annotations

from orchestrator.scheduling.engine_actor import EngineActor
from trainables.config import TrialConfig
from trainables.engine.inbox import Inbox
from trainables.outcome import EpochReport, OutcomeStatus, TrialOutcome, now


class NoOpEngine:
    """In the place of `trainables.engine.engine.Engine`."""

    name = "no-op"
    status = None

    def work(self, inbox: Inbox) -> None:
        while jobs := inbox.take(1, lambda job: True):
            jobs[0].done(_outcome(jobs[0].config))


class NoOpEngineActor(EngineActor):
    """An engine actor around it: all that happens between a trial's process and its engine is the real thing."""

    def __init__(self, num_threads: int, share: float = 1.0) -> None:
        super().__init__(num_threads, share)
        self._engine = NoOpEngine()  # type: ignore[assignment]


def _outcome(config: TrialConfig) -> TrialOutcome:
    measured = {"accuracy": 0.5, "loss": 0.7}
    epoch = EpochReport(epoch=1, step=1, train_loss=0.7, validation_score=0.5, validation=measured, duration_s=0.0)
    return TrialOutcome(
        status=OutcomeStatus.COMPLETED,
        started_at=now(),
        duration_s=0.0,
        epochs=(epoch,),
        metric="accuracy",
        validation_score=0.5,
        validation=measured,
        test_score=0.5,
        test={"accuracy": 0.5},
        best_epoch=1,
    )
