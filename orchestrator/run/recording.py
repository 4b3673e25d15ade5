"""The one writer of a running sweep: what the scheduler tells goes to the store, then to MLflow, then to the eye."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING, Protocol

from orchestrator.engine_status import EngineStatus
from orchestrator.planning.plan import PlannedTrial
from orchestrator.record import TrialRecord, TrialStatus
from orchestrator.secrets import masked
from orchestrator.store import Store, TrialPredictions
from trainables.outcome import EpochReport
from trainables.predictions import Predictions

if TYPE_CHECKING:
    import pyarrow as pa

    from orchestrator.tracking import Tracker

logger = logging.getLogger(__name__)

# Between two notes in the store of what the engines are doing.
NOTE_EVERY_S = 5.0
# Between two attempts to write to a storage that fails; each is twice the one before.
FIRST_WAIT_S, LONGEST_WAIT_S = 1.0, 10.0
# Of so many trials predictions that the storage refuses are held, to be written with later ones.
MOST_HELD = 64
# An interrupt ends such a wait within so long.
_LOOK_EVERY_S = 0.2


class Progress(Protocol):
    """Who shows a sweep's progress."""

    def planned(self, trials: int, done: int) -> None: ...

    def notice(self, line: str) -> None:
        """One line that the user should read."""

    def engines_starting(self, count: int) -> None: ...

    def engines_ready(self, names: Sequence[str]) -> None: ...

    def engines_working(self, engines: Sequence[EngineStatus]) -> None: ...

    def trial_started(self, trial: PlannedTrial) -> None: ...

    def epoch_ended(self, trial: PlannedTrial, epoch: EpochReport) -> None: ...

    def trial_ended(self, record: TrialRecord) -> None: ...

    def storage_failing(self, reason: str, waiting: int) -> None:
        """The storage refuses what has to be written, so the sweep waits; `waiting` trained trials have no record."""

    def storage_back(self) -> None:
        """What waited has been written, and the sweep goes on."""


class Silent:
    """Progress that nobody watches; a line that somebody should read goes to the log."""

    def planned(self, trials: int, done: int) -> None: ...

    def notice(self, line: str) -> None:
        logger.info("%s", line)

    def engines_starting(self, count: int) -> None: ...

    def engines_ready(self, names: Sequence[str]) -> None: ...

    def engines_working(self, engines: Sequence[EngineStatus]) -> None: ...

    def trial_started(self, trial: PlannedTrial) -> None: ...

    def epoch_ended(self, trial: PlannedTrial, epoch: EpochReport) -> None: ...

    def trial_ended(self, record: TrialRecord) -> None: ...

    def storage_failing(self, reason: str, waiting: int) -> None: ...

    def storage_back(self) -> None: ...


class Recording:
    """Notes what the scheduler tells, each record first in the store. It waits, and with it the sweep, while the
    storage refuses one: nothing that has been trained is lost to a full disk. What else fails to be written does not
    stop it. Another driver that has taken the store over does, with `StoreLockedError`.
    """

    # Whether the user asked for the end, which ends the waiting too; set by whoever catches the signals.
    is_interrupted: Callable[[], bool] | None = None

    def __init__(
        self,
        store: Store,
        make_tracker: Callable[[], Tracker],
        progress: Progress,
        *,
        known: Callable[[], Sequence[TrialRecord]],
        planned: Collection[str] | None,
        waits_s: tuple[float, float] = (FIRST_WAIT_S, LONGEST_WAIT_S),
    ) -> None:
        """`known` reads the sweep's records; `planned` holds its trials, where MLflow may lack some: None for a new
        sweep in a new store. `waits_s` are the first and the longest wait for a storage that fails.
        """
        self._first_wait_s, self._longest_wait_s = waits_s
        self._store = store
        self._make_tracker = make_tracker
        self._progress = progress
        self._known = known
        self._planned = planned
        self._next_note = 0.0
        self._is_failing = False
        self._waiting: list[TrialRecord] = []
        self._predicted: dict[str, TrialPredictions] = {}
        self._predictions_fault: str | None = None
        self._unkept = 0  # trials whose predictions the storage refused too long
        self.ended = 0

    @cached_property
    def tracker(self) -> Tracker:
        """The window in MLflow, which takes seconds to open: it is opened while engines load, or when first used."""
        tracker = self._make_tracker()
        if self._planned is not None:
            tracker.refill(self._known(), planned=self._planned)
        return tracker

    def close_tracker(self, status: TrialStatus) -> None:
        """End the sweep's run in MLflow, and with it the tracker, where it was opened."""
        if "tracker" in self.__dict__:
            self.tracker.close(status, self._known)

    def leave_tracker(self) -> None:
        """Stop writing to MLflow and leave the sweep's runs as they are: another driver goes on with them."""
        if "tracker" in self.__dict__:
            self.tracker.leave()
            del self.tracker

    @property
    def unrecorded(self) -> int:
        """How many trials have been trained whose records are not in the store."""
        return len(self._waiting)

    def notice(self, line: str) -> None:
        self._progress.notice(line)

    def engines_starting(self, count: int) -> None:
        self._progress.engines_starting(count)
        _ = self.tracker

    def engines_ready(self, names: Sequence[str]) -> None:
        self._progress.engines_ready(names)

    def engines_working(self, engines: Sequence[EngineStatus]) -> None:
        self._progress.engines_working(engines)
        self.tracker.engines_working(engines)
        if time.monotonic() >= self._next_note:
            self._next_note = time.monotonic() + NOTE_EVERY_S
            self._store.write_engine_snapshot(engines)

    def trial_started(self, trial: PlannedTrial) -> None:
        self.tracker.trial_started(trial)
        self._progress.trial_started(trial)

    def epoch_ended(self, trial: PlannedTrial, epoch: EpochReport) -> None:
        self.tracker.epoch(trial.trial_id, epoch)
        self._progress.epoch_ended(trial, epoch)

    def trial_predicted(self, record: TrialRecord, predictions: Mapping[str, Predictions]) -> None:
        """Hold what a trial predicts until its record comes, and write it before that."""
        assert record.started_at is not None  # it has been trained
        self._predicted[record.trial_id] = TrialPredictions(started_at=record.started_at, splits=predictions)

    def trials_ended(self, records: Sequence[TrialRecord]) -> None:
        """Keep the records of trials that ended, in one segment of the store."""
        self._waiting += [_without_secrets(record) for record in records]
        self.record_waiting()

    def record_waiting(self) -> None:
        """Write the records that wait, if any; after an interrupt one attempt is made, and they wait on."""
        records = list(self._waiting)

        def write() -> None:
            self._keep_predictions()
            self._store.append(records)

        if not records or not self._write(write):
            return
        self._let_go_of_predictions()
        self._waiting.clear()
        self.ended += len(records)
        for record in records:
            self.tracker.trial_ended(record)
            self._progress.trial_ended(record)

    def settle_predictions(self) -> None:
        """Write what predictions are still held, in one attempt, and say of how many trials there are none."""
        self._keep_predictions()
        if lost := self._unkept + len(self._predicted):
            self._predicted.clear()
            number = "1 trial" if lost == 1 else f"{lost} trials"
            self._progress.notice(f"The predictions of {number} are not kept: {self._predictions_fault}")

    def _keep_predictions(self) -> None:
        """Write the predictions that are held; records do without them where the storage refuses it."""
        if not self._predicted:
            return
        try:
            self._store.keep_predictions(self._predicted)
        except OSError as error:
            self._predictions_fault = _first_line(error)
        else:
            self._predicted.clear()

    def _let_go_of_predictions(self) -> None:
        """Once records are written: of predictions that could not be, hold those of the last trials."""
        if self._predicted and not self._unkept:
            logger.warning("predictions could not be written, and are tried again: %s", self._predictions_fault)
        while len(self._predicted) > MOST_HELD:
            del self._predicted[next(iter(self._predicted))]
            self._unkept += 1

    def trial_known(self, record: TrialRecord) -> None:
        """A trial of this sweep need not be trained: another sweep that shares the store has its record."""
        self.tracker.trial_ended(record)
        self._progress.trial_ended(record)

    def planned_more(self, table: pa.Table) -> None:
        """Keep trials that a search has just thought of, before the first of them is handed out."""

        def plan() -> None:
            statuses = self._store.statuses()
            known = [i for i in table["trial_id"].to_pylist() if i in statuses]
            self._store.retire(i for i in known if not statuses[i].is_finished())  # another sweep's, tried again now
            self._store.add_planned(table)

        if not self._write(plan):
            logger.warning("%d trials could not be added to the plan; they will not be trained", table.num_rows)

    def _write(self, write: Callable[[], None]) -> bool:
        """Write, however long the storage refuses it; False where the user asked for the end before it took it."""
        wait_s = self._first_wait_s
        while True:
            try:
                write()
            except OSError as error:
                if not self._is_failing:
                    self._is_failing = True
                    self._progress.storage_failing(_first_line(error), len(self._waiting))
                if self._has_been_interrupted():
                    return False
                self._wait(wait_s)
                wait_s = min(2 * wait_s, self._longest_wait_s)
            else:
                if self._is_failing:
                    self._is_failing = False
                    self._progress.storage_back()
                return True

    def _wait(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0 and not self._has_been_interrupted():
            time.sleep(min(_LOOK_EVERY_S, left))

    def _has_been_interrupted(self) -> bool:
        return self.is_interrupted is not None and self.is_interrupted()


def _without_secrets(record: TrialRecord) -> TrialRecord:
    """A record as it may be kept and shown: what raised an error may have held a key in its hands."""
    return record if record.error is None else replace(record, error=masked(record.error))


def _first_line(error: Exception) -> str:
    return masked(next(iter(str(error).splitlines()), "")) or type(error).__name__
