"""Who writes down what a scheduler tells."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from orchestrator.engine_status import EngineStatus
from orchestrator.planning.plan import PlannedTrial
from orchestrator.record import TrialRecord
from trainables.outcome import EpochReport, WeightFiles
from trainables.predictions import Predictions


class Observer:
    """Writes down what it is told, and does something the first time a trial of so many epochs reports one."""

    def __init__(self, on_epoch: dict[int, Callable[[], None]] | None = None) -> None:
        self.is_interrupted: Callable[[], bool] | None = None
        self.notices: list[str] = []
        self.starting = 0
        self.engines: Sequence[str] = ()
        self.working: list[EngineStatus] = []
        self.started: list[str] = []
        self.epochs: list[tuple[str, int]] = []
        self.records: list[TrialRecord] = []
        self.predictions: dict[str, Mapping[str, Predictions]] = {}
        self.weights: dict[str, Mapping[str, bytes]] = {}
        self._on_epoch = dict(on_epoch or {})

    def notice(self, line: str) -> None:
        self.notices.append(line)

    def engines_starting(self, count: int) -> None:
        self.starting = count

    def engines_ready(self, names: Sequence[str]) -> None:
        self.engines = names

    def engines_working(self, engines: Sequence[EngineStatus]) -> None:
        self.working += engines

    def trial_started(self, trial: PlannedTrial) -> None:
        self.started.append(trial.trial_id)

    def epoch_ended(self, trial: PlannedTrial, epoch: EpochReport) -> None:
        self.epochs.append((trial.trial_id, epoch.epoch))
        self._on_epoch.pop(trial.config.num_epochs, lambda: None)()

    def trial_predicted(self, record: TrialRecord, predictions: Mapping[str, Predictions]) -> None:
        assert record.trial_id not in {told.trial_id for told in self.records}  # before the record
        self.predictions[record.trial_id] = predictions

    def trial_trained(self, record: TrialRecord, weights: WeightFiles) -> None:
        assert record.trial_id not in {told.trial_id for told in self.records}  # before the record
        self.weights[record.trial_id] = weights()

    def trials_ended(self, records: Sequence[TrialRecord]) -> None:
        self.records += records

    def by_id(self) -> dict[str, TrialRecord]:
        assert len({record.trial_id for record in self.records}) == len(self.records)  # exactly one each
        return {record.trial_id: record for record in self.records}
