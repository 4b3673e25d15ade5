"""A scheduler that trains nothing and an MLflow that only listens, for what `execute` does with the real ones."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import signal
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Any, ClassVar

from orchestrator.record import TrialRecord, TrialStatus
from orchestrator.run.recording import Silent
from orchestrator.run.sweep import SweepRun, execute, prepare
from orchestrator.scheduling.early_end import EarlyEnd
from orchestrator.tracking import WinnerModel
from tests.factories import trial_record
from tests.predicted import of_trial
from trainables.faults import FaultsError

Values = dict[str, Any]


@dataclasses.dataclass
class Scheduler:
    """Ends every trial of a source at once with the same score; those whose learning rate is 1 fail."""

    trained: list[str] = dataclasses.field(default_factory=list)
    stop_after: int | None = None  # trials, and then an interrupt comes
    before_each: Callable[[], None] = lambda: None
    earlier: Sequence[TrialRecord] = ()
    asked_to_keep: list[bool] = dataclasses.field(default_factory=list)
    better: set[str] = dataclasses.field(default_factory=set)  # trials with another score
    lost: set[str] = dataclasses.field(default_factory=set)  # whose weights do not arrive
    fault: FaultsError | None = None  # why it cannot begin

    def run(
        self, sweep: str, source: Any, observer: Any, *, earlier: Sequence[TrialRecord], **settings: Any
    ) -> EarlyEnd | None:
        self.earlier = earlier
        if self.fault:
            raise self.fault
        observer.engines_starting(1)
        observer.is_interrupted = lambda: self.stop_after is not None and len(self.trained) >= self.stop_after
        while not observer.is_interrupted() and (trial := source.next()) is not None:
            self.before_each()
            failed = trial.config.learning_rate == 1
            status = TrialStatus.FAILED if failed else TrialStatus.COMPLETED
            score, error = (None, "no") if failed else (0.5 + 0.1 * (trial.trial_id in self.better), None)
            record = trial_record(trial, status, sweep=sweep, metric="accuracy", validation_score=score, error=error)
            self.trained.append(trial.trial_id)
            self.asked_to_keep.append(settings["keep_predictions"])
            source.ended(record)
            if settings["keep_predictions"] and not failed:
                record = dataclasses.replace(record, started_at=f"training {len(self.trained)}")
                observer.trial_predicted(record, of_trial(len(self.trained)).splits)
            if settings["keep_weights"] and not failed:
                record = dataclasses.replace(record, started_at=f"training {len(self.trained)}")
                observer.trial_trained(record, lambda record=record: self._weights(record))
            observer.trials_ended([record])
        return EarlyEnd(signal=signal.SIGINT) if observer.is_interrupted() else None

    def _weights(self, record: TrialRecord) -> dict[str, bytes]:
        if record.trial_id in self.lost:
            raise ConnectionError("the engine has died")
        weights = record.trial_id.encode()
        about = {"started_at": record.started_at, "weights_sha256": hashlib.sha256(weights).hexdigest()}
        return {"adapter_model.safetensors": weights, "adapter_config.json": json.dumps(about).encode()}


class Listener:
    """A tracker that notes which trials it was told of, and how the sweep ended."""

    made: ClassVar[list[Listener]] = []

    def __init__(
        self, sweep: str, spec_json: str, *, varied: Any, data: Sequence[Any], tracking_uri: str | None = None
    ) -> None:
        self.sweep, self.refilled, self.ended, self.planned = sweep, [], [], None
        self.end: TrialStatus | None = None
        self.models: Sequence[WinnerModel] | None = None
        Listener.made.append(self)

    def refill(self, records: Sequence[TrialRecord], planned: Collection[str] | None = None) -> None:
        self.refilled, self.planned = [record.trial_id for record in records], planned

    def trial_ended(self, record: TrialRecord) -> None:
        self.ended.append(record.trial_id)

    def show_best(self, best: Sequence[Any]) -> None: ...

    def show_models(self, models: Sequence[WinnerModel]) -> None:
        self.models = models

    def log_artifacts(self, path: Any, folder: str) -> None: ...

    def close(self, status: TrialStatus, records: Callable[[], Sequence[TrialRecord]]) -> None:
        self.end = self.end or status
        self.all = [record.trial_id for record in records()]


def run(values: Values, store: Path, *, widen: bool = False, progress: Silent | None = None) -> SweepRun:
    return execute(*prepare(values, store, widen=widen), progress or Silent(), make_report=False)
