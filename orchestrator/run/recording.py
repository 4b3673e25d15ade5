"""The one writer of a running sweep: what the scheduler tells goes to the store, then to MLflow, then to the eye."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING, Protocol, TypeVar

from orchestrator.engine_status import EngineStatus
from orchestrator.planning.plan import PlannedTrial
from orchestrator.record import TrialRecord, TrialStatus
from orchestrator.run.winners import Winners
from orchestrator.secrets import masked
from orchestrator.store import Store, StoreLockedError, TrialPredictions
from trainables.faults import FaultsError
from trainables.outcome import EpochReport, WeightFiles
from trainables.predictions import Predictions

if TYPE_CHECKING:
    import pyarrow as pa

    from orchestrator.tracking import Tracker

logger = logging.getLogger(__name__)

T = TypeVar("T")

# Between two notes in the store of what the engines are doing.
NOTE_EVERY_S = 5.0
# Between two attempts to write to a storage that fails; each is twice the one before.
FIRST_WAIT_S, LONGEST_WAIT_S = 1.0, 10.0
# Of so many trials predictions that the storage refuses are held, to be written with later ones; so are weights.
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
        """The storage refuses what is asked of it, so the sweep waits; `waiting` trained trials have no record."""

    def storage_back(self) -> None:
        """The storage does what it is asked again, what waited has been written, and the sweep goes on."""


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
        winners: Winners | None = None,
        waits_s: tuple[float, float] = (FIRST_WAIT_S, LONGEST_WAIT_S),
    ) -> None:
        """`known` reads the sweep's records; `planned` holds its trials, where MLflow may lack some: None for a new
        sweep in a new store. `winners` says whose weights are worth keeping; None keeps none. `waits_s` are the first
        and the longest wait for a storage that fails.
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
        self._winners = winners
        self._trained: dict[str, WeightFiles] = {}  # what has been trained, until it is kept or not worth keeping
        self._kept: set[str] = set()  # trials of this sweep whose weights are in the store
        self._weights_fault: str | None = None
        self._weights_lost: set[str] = set()
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
        """Begin: records of trials that are tried again are moved aside, and the window in MLflow is opened.

        Not before: where Ray cannot be joined, nothing begins, and the store is left as it was. Raises `FaultsError`
        where the storage refuses.
        """
        if self._planned is not None:
            try:
                self._store.retire_unfinished(self._planned)
            except OSError as error:
                raise FaultsError(f"store {self._store.uri}", [f"the store must be writable, but {error}"]) from error
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

    def trial_trained(self, record: TrialRecord, weights: WeightFiles) -> None:
        """Hold on to what a trial has trained until its record comes, and write it before that, if it may be chosen."""
        self._trained[record.trial_id] = weights

    def trials_ended(self, records: Sequence[TrialRecord]) -> None:
        """Keep the records of trials that ended, in one segment of the store."""
        self._waiting += [_without_secrets(record) for record in records]
        self.record_waiting()

    def record_waiting(self) -> None:
        """Write the records that wait, if any; after an interrupt one attempt is made, and they wait on."""
        records = list(self._waiting)

        def write() -> None:
            self._keep_predictions()
            self._keep_weights(records)
            self._store.append(records)

        if not records or not self._write(write):
            return
        self._let_go_of_predictions()
        self._let_go_of_weights()
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

    def find_kept(self, sweep: str) -> None:
        """Before the first trial: learn of the sweep's trials that have ended, and let go of weights of no use now.

        Those are of trials that are not recorded, since a driver died, or that have been overtaken.
        """
        if self._winners is None or self._planned is None:
            return
        known = [record for record in self._known() if record.status.is_finished()]  # the others are tried again
        self._winners.add(known)
        # What another sweep that shares the store has trained is that one's to remove.
        others = {record.trial_id for record in known if record.sweep != sweep}
        self._kept = set(self._store.kept_weights() & frozenset(self._planned) - others)
        self._let_go_of_weights()

    def settle_weights(self, *, is_complete: bool) -> None:
        """At the end: keep the winners alone where no trial is left, and say whose weights could not be kept."""
        if self._winners is None:
            return
        self._keep_weights(())
        self._remove_weights(self._kept - (self._winners.chosen() if is_complete else self._winners.to_keep()))
        lost = (self._weights_lost | self._trained.keys()) & self._winners.chosen()
        self._trained.clear()
        if lost:
            number = "1 trial" if len(lost) == 1 else f"{len(lost)} trials"
            why = f"{self._weights_fault}; `adaptune export` trains again what it needs"
            self._progress.notice(f"The weights of {number} are not kept: {why}")

    def _keep_weights(self, ended: Sequence[TrialRecord]) -> None:
        """Write what has been trained of those that may be chosen, one trial after the other, and drop the rest."""
        if self._winners is None:
            return
        self._winners.add(ended)
        wanted = self._winners.to_keep() if self._trained else frozenset()
        for trial_id in [trial_id for trial_id in self._trained if trial_id not in wanted]:
            del self._trained[trial_id]
        for trial_id, weights in list(self._trained.items()):
            try:
                files = weights()
            except Exception as error:  # whatever Ray says of an engine that has died; a trial needs no weights
                self._weights_fault = _first_line(error)
                logger.warning("the weights of trial %s did not arrive: %s", trial_id, self._weights_fault)
                self._weights_lost.add(trial_id)
                del self._trained[trial_id]
                continue
            try:
                self._store.keep_weights(trial_id, files)
            except OSError as error:  # tried again with the next records
                self._weights_fault = _first_line(error)
                return
            self._kept.add(trial_id)
            self._weights_lost.discard(trial_id)
            del self._trained[trial_id]

    def _let_go_of_weights(self) -> None:
        """Once records are written: of what could not be kept hold on to the last, and remove what is overtaken."""
        if self._winners is None:
            return
        while len(self._trained) > MOST_HELD:
            lost = next(iter(self._trained))
            del self._trained[lost]
            self._weights_lost.add(lost)
        if self._kept:
            self._remove_weights(self._kept - self._winners.to_keep())

    def _remove_weights(self, overtaken: Collection[str]) -> None:
        if not overtaken:
            return
        try:
            self._store.remove_weights(sorted(overtaken))
        except OSError as error:
            logger.warning("weights that are overtaken could not be removed, and are later: %s", error)
        else:
            self._kept -= set(overtaken)

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
            self._store.retire_unfinished(table["trial_id"].to_pylist())  # another sweep's, tried again now
            self._store.add_planned(table)

        if not self._write(plan):
            logger.warning("%d trials could not be added to the plan; they will not be trained", table.num_rows)

    def _write(self, write: Callable[[], None]) -> bool:
        """Write, however long the storage refuses it; False where the user asked for the end before it took it."""
        try:
            self.wait_for(write)
        except OSError:
            return False
        return True

    def wait_for(self, use: Callable[[], T]) -> T:
        """Use the store, again and again while its storage fails, and give what comes of it.

        What the storage raises, or a `FaultsError` that came of it, is raised where the user asked for the end.
        """
        wait_s = self._first_wait_s
        while True:
            try:
                given = use()
            except (OSError, FaultsError) as error:
                cause = error if isinstance(error, OSError) else error.__cause__
                if not isinstance(cause, OSError) or isinstance(error, StoreLockedError):
                    raise
                if not self._is_failing:
                    self._is_failing = True
                    self._progress.storage_failing(_first_line(cause), len(self._waiting))
                if self._has_been_interrupted():
                    raise
            else:
                if self._is_failing:
                    self._is_failing = False
                    self._progress.storage_back()
                return given
            self._wait(wait_s)
            wait_s = min(2 * wait_s, self._longest_wait_s)

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
