"""Store: everything a sweep leaves behind, in one folder that outlives adaptune."""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
from pyarrow.fs import FileSystem

from orchestrator.engine_status import EngineStatus
from orchestrator.record import TrialRecord, TrialStatus
from orchestrator.secrets import without_settings
from orchestrator.store.artifacts import read_ablations, write_artifacts
from orchestrator.store.curves import epochs_table
from orchestrator.store.data_warnings import read_data_warnings, write_data_warnings
from orchestrator.store.engine_snapshot import EngineSnapshot, read_note, remove_note, write_note
from orchestrator.store.fence import StoreLockedError
from orchestrator.store.files import Folder, open_folder
from orchestrator.store.identity import Holder
from orchestrator.store.inference_costs import read_inference_costs, write_inference_costs
from orchestrator.store.kept_weights import KEPT, KeptWeights
from orchestrator.store.lock import Held, hold, holder, last_sign
from orchestrator.store.plans import Plans
from orchestrator.store.predictions import FOLDER, PredictionFiles, TrialPredictions
from orchestrator.store.rows import records_from_table, table_from_records
from orchestrator.store.segments import Segments, parquet_bytes
from trainables.faults import FaultsError

logger = logging.getLogger(__name__)


class Store:
    """A folder of one sweep or several: their specs, their plans and one record for every trial that has ended.

    `uri` is a local path or a `file://`, `s3://` or `gs://` URI. Making a Store reads and writes nothing.

    - One process writes at a time, inside `lock()`; any number may read meanwhile, and never see half a record.
    - `trials/` holds at most one record a trial. A record is never changed. One of a failed or cancelled trial may
      be retired, which moves it to `superseded/`; nothing is ever thrown away.
    - What an `append` has returned from survives the death of the process. A write that fails raises `OSError` and
      leaves the store as readable as it was.
    - A file in `trials/` that is torn or not the store's is named in a warning and otherwise left alone. What else
      cannot be read raises `FaultsError`.
    """

    def __init__(self, uri: str | os.PathLike[str], *, filesystem: FileSystem | None = None) -> None:
        """`filesystem` replaces the one that the URI names; `uri` is then a path on it.

        Raises `FaultsError` where the URI cannot be understood.
        """
        self.uri = os.fspath(uri)
        self._folder = Folder(filesystem, self.uri.rstrip("/")) if filesystem is not None else open_folder(uri)
        self._name = without_settings(self.uri)  # in messages
        self._segments = Segments(self._folder.folder("trials"))
        self._plans = Plans(self._folder, self._name)
        self._predictions = PredictionFiles(self._folder.folder(FOLDER))
        self._weights = KeptWeights(self._folder.folder(KEPT))
        self._held: Held | None = None
        self._is_there = False

    @property
    def filesystem(self) -> FileSystem:
        return self._folder.filesystem

    @property
    def path(self) -> str:
        """Where the store lies on its `filesystem`; other folders of the sweep, such as `report`, lie below it."""
        return self._folder.path

    def exists(self) -> bool:
        """Whether a sweep has been stored here."""
        with self._reading():
            return self._plans.exist()

    def create(self, spec_json: str, plan_table: pa.Table, most_trials: int | None = None) -> None:
        """Begin a store. Raises `FaultsError` where there is one already or the place cannot be written."""
        if self.exists():
            raise FaultsError(
                f"store {self.uri}", ["a new store needs a free place, but a sweep is stored here already"]
            )
        self.begin(spec_json, plan_table, most_trials)

    def begin(self, spec_json: str, plan_table: pa.Table, most_trials: int | None = None) -> None:
        """Put a sweep in the place of the one last run, with this spec and plan; the other stays in `sweeps/<name>/`.

        What the store held for this sweep and no longer does stays in `history/`. Without a change, nothing is written.
        `most_trials` says how many trials a search that plans as it goes will have planned at most. Raises
        `FaultsError` where the place cannot be written.
        """
        with self._writing():
            self._check_lock()
            self._plans.begin(spec_json, plan_table, most_trials)

    def add_planned(self, table: pa.Table) -> None:
        """Add trials to the plan of the sweep last run; they are there for good when it returns. Raises `OSError`."""
        self._check_lock()
        self._plans.add(table)

    def sweeps(self) -> tuple[str, ...]:
        """The names of the sweeps that share this store, the one last run first. Raises `FaultsError` without any."""
        with self._reading():
            return self._plans.names()

    def spec_json(self, name: str | None = None) -> str:
        """The resolved spec of a sweep, by default of the one last run. Raises `FaultsError` where there is none."""
        with self._reading():
            return self._plans.spec_json(name)

    def plan_table(self, name: str | None = None) -> pa.Table:
        """The planned trials of a sweep, by default of all, each trial once. Raises `FaultsError` where none is."""
        with self._reading():
            return self._plans.all_tables() if name is None else self._plans.table(name)

    def unproposed(self, name: str | None = None) -> int:
        """How many more trials than are planned the search of a sweep, or those of all, will propose at most."""
        with self._reading():
            return sum(self._plans.unproposed(each) for each in (self._plans.names() if name is None else [name]))

    @contextmanager
    def lock(self, *, take_over: bool = False, only_driver: bool = False) -> Iterator[None]:
        """Be this store's only driver for a `with` block; the folder is made where there is none.

        Raises `StoreLockedError` on entering where another driver is at work, with its host and process, and
        `FaultsError` where the place cannot be written. Whatever writes within the block raises the former, should
        another driver have taken the store over from one that seemed dead. One that may be alive is watched for a sign
        of life first, for two minutes; with `take_over` it is not. A place that cannot keep a second driver out is
        refused with a `FaultsError`, unless the user vouches with `only_driver` for being the only one.
        """
        held_so = hold(self._folder, self.uri, take_over=take_over, only_driver=only_driver)
        with held_so as held, contextlib.ExitStack() as owned:
            with self._writing():
                owned.enter_context(self._segments.owned(after_another=held.was_taken, check_lock=held.check))
                owned.enter_context(self._predictions.owned())
            self._held = held
            try:
                yield
            finally:
                self._held = None

    def holder(self) -> Holder | None:
        """The driver that is at work on this store, seen from anywhere; None where there is none."""
        with self._reading():
            return holder(self._folder)

    def silent_s(self) -> float | None:
        """How long ago the driver at work gave its last sign of life, in seconds; None where there is no driver."""
        with self._reading():
            seen = last_sign(self._folder) if holder(self._folder) else None
        return None if seen is None else max(0.0, (datetime.now(UTC) - seen).total_seconds())

    def write_engine_snapshot(self, engines: Sequence[EngineStatus]) -> None:
        """Leave a note of what the engines are doing, in the place of the one before. Never raises `OSError`."""
        with _tolerating("what the engines are doing could not be noted"):
            self._check_lock()
            write_note(self._folder, engines)

    def remove_engine_snapshot(self) -> None:
        """Take the note of the engines away, unless it is another driver's by now: they do nothing more."""
        with contextlib.suppress(OSError, StoreLockedError):
            self._check_lock()
            remove_note(self._folder)

    def engine_snapshot(self) -> EngineSnapshot | None:
        """What the engines of the driver at work were last seen to do; None where no driver is, or it has not said."""
        at_work, note = self.holder(), read_note(self._folder)
        if at_work is None or note is None or (note.host, note.pid) != (at_work.host, at_work.pid):
            return None  # of a driver that was killed
        return note

    def append(self, records: Sequence[TrialRecord]) -> None:
        """Add records, all or none, as one segment, at a cost that does not grow with what is stored.

        Raises `ValueError` before anything is written where a trial has a record already, and `OSError` where nothing
        could be written; trying again then never makes two of one.
        """
        if not records:
            return
        self._check_lock()
        present = self._segments.statuses()
        counts = Counter(record.trial_id for record in records)
        if twice := sorted(trial_id for trial_id, count in counts.items() if count > 1 or trial_id in present):
            raise ValueError(f"a trial has one record, but there would be a second of {', '.join(twice)}")
        self._segments.add(table_from_records(records))
        with _tolerating("segments could not be merged, and are later"):
            self._segments.tidy()

    def retire(self, trial_ids: Iterable[str], *, even_finished: bool = False) -> int:
        """Move the records of trials to `superseded/`, so that the trials can be run again.

        Ids without a record are passed over. Returns how many records were moved. Raises `ValueError` before
        anything is written where one of the trials has finished, unless `even_finished`, and `OSError` where the
        place cannot be read or written; trying again then doubles nothing.
        """
        statuses = self._segments.statuses()
        held = {trial_id for trial_id in trial_ids if trial_id in statuses}
        if not even_finished and (finished := sorted(i for i in held if statuses[i].is_finished())):
            raise ValueError(f"finished trials keep their records, but {', '.join(finished)} should be retired")
        if not held:
            return 0
        self._check_lock()
        self._weights.remove(held & self._weights.trials())  # they are of a training that counts no more
        for name, rows in list(self._segments.holding(held)):
            # Named by its content: retiring the same records again after a crash leaves the same one file.
            content = parquet_bytes(rows)
            place = f"superseded/part-{hashlib.sha256(content).hexdigest()[:16]}.parquet"
            self._folder.write(place, content, durable=True)
            self._segments.remove(name, held)
        return len(held)

    def retire_unfinished(self, trial_ids: Iterable[str]) -> int:
        """`retire` those that failed or were cancelled, and leave the others. Raises `OSError`."""
        statuses = self._segments.statuses()
        return self.retire(i for i in trial_ids if i in statuses and not statuses[i].is_finished())

    def compact(self, *, plan_is_final: bool = False) -> None:
        """Merge all segments into one with one schema, which is quicker to read and easier on other tools.

        So are files of planned trials; with `plan_is_final` a search has no more to propose. Raises `OSError`.
        """
        self._check_lock()
        self._segments.merge_all()
        if self._plans.exist():
            self._plans.merge(is_final=plan_is_final)
        self._predictions.merge_all()

    def trials(self) -> pa.Table:
        """One row a trial that has ended, in the order in which they were recorded.

        The columns and their types are those of `orchestrator.store.schema`, which an empty store has too.
        """
        return self.trials_and_epochs()[0]

    def epochs(self) -> pa.Table:
        """One row per trial and epoch; see `orchestrator.store.curves`."""
        return epochs_table(self.trials_and_epochs()[1]())

    def trials_and_epochs(self) -> tuple[pa.Table, Callable[[], pa.Table]]:
        """`trials`, and a function that gives each one's identity and epochs, for `epochs_table` to lay out.

        Epochs take most of the time and the memory that reading a store needs. The function parses them when it is
        called, as they are in the store now, whatever becomes of it meanwhile.
        """
        with self._reading():
            return self._segments.read_without_epochs()

    def records(self, trial_ids: Collection[str] | None = None) -> list[TrialRecord]:
        """All records, or those of some trials, in the order in which they were added."""
        with self._reading():
            table = self._segments.read()
        if trial_ids is not None:
            table = table.filter(pc.is_in(table["trial_id"], pa.array(sorted(trial_ids), pa.string())))
        return records_from_table(table)

    def statuses(self) -> dict[str, TrialStatus]:
        """trial_id -> status of every trial that has ended. Asking again reads only what is new."""
        with self._reading():
            return dict(self._segments.statuses())

    def finished_ids(self) -> frozenset[str]:
        """The trials that need no more training."""
        return frozenset(trial_id for trial_id, status in self.statuses().items() if status.is_finished())

    def keep_predictions(self, trials: Mapping[str, TrialPredictions]) -> None:
        """Keep what trials predicted, as one file, before their records are added. Raises `OSError`.

        They are of no use without the records, and harm nothing: what a driver that dies in between has kept is never
        read. Keeping the same again doubles nothing.
        """
        self._check_lock()
        self._predictions.add(trials)
        with _tolerating("files of predictions could not be merged, and are later"):
            self._predictions.tidy()

    def predictions(self, trainings: Mapping[str, str | None], split: str | None = None) -> dict[str, pa.Table]:
        """What trials predicted, by trial, given when the training of each started; of one split or of all.

        See `orchestrator.store.predictions`. Raises `FaultsError` naming what is torn, and otherwise leaves out a trial
        of which nothing is kept.
        """
        with self._reading():
            return self._predictions.read(trainings, split)

    def keep_weights(self, trial_id: str, files: Mapping[str, bytes]) -> None:
        """Keep what a trial has trained, as the files of a saved adapter, in `kept/<trial id>/`, before its record.

        Like predictions they are of no use without the record, and are told from another training's. Raises `OSError`.
        """
        self._check_lock()
        self._weights.write(trial_id, files)

    def remove_weights(self, trial_ids: Iterable[str]) -> None:
        """Let go of what trials have trained. Raises `OSError`; what is gone by then is gone."""
        self._check_lock()
        self._weights.remove(trial_ids)

    def kept_weights(self) -> frozenset[str]:
        """The trials whose trained weights are kept here."""
        with self._reading():
            return self._weights.trials()

    def weights(self, trial_id: str, started_at: str | None) -> Mapping[str, bytes] | None:
        """The files of a saved adapter, as the training that began at this time left them, by their path in its folder.

        None where they are not kept here, or not whole. Raises `FaultsError` where the store cannot be read.
        """
        with self._reading():
            return self._weights.read(trial_id, started_at)

    def ablations(self) -> pa.Table | None:
        """Every ablation of a trial that is kept here, one under the other; None where there is none."""
        with self._reading():
            return read_ablations(self._folder)

    def write_data_warnings(self, table: pa.Table, tasks: Collection[str]) -> None:
        """Put what is odd in the data of these tasks in the place of what was known of them; that of others stays."""
        with _tolerating("the warnings about the data could not be kept"):
            self._check_lock()
            write_data_warnings(self._folder, table, tasks)

    def data_warnings(self) -> pa.Table | None:
        """What was odd in the data of the tasks: columns task, warning and sentence. None where none is kept."""
        with self._reading():
            return read_data_warnings(self._folder)

    def write_inference_costs(self, table: pa.Table) -> None:
        """Keep what models cost when they answer, in the place of what was measured before.

        Columns as `orchestrator.store.inference_costs` has them. Raises `FaultsError` where it cannot be written.
        """
        with self._writing():
            write_inference_costs(self._folder, table)

    def inference_costs(self) -> pa.Table | None:
        """What models cost when they answer; None where nobody has measured it."""
        with self._reading():
            return read_inference_costs(self._folder)

    def keep_artifacts(self, trial_id: str, files: Mapping[str, bytes]) -> tuple[str, ...]:
        """Keep files made of a trial in `artifacts/<trial id>/`, each in one step, in the order given.

        Returns their places below the store's URI. Raises `FaultsError` where the place cannot be written.
        """
        with self._writing():
            write_artifacts(self._folder, trial_id, files)
        return tuple(f"{self.uri.rstrip('/')}/artifacts/{trial_id}/{name}" for name in files)

    def _check_lock(self) -> None:
        """Before a write of a driver. Raises `StoreLockedError`, or `OSError` where the store is out of reach."""
        if self._held is None:
            return
        if self._plans.exist():
            self._is_there = True
        elif self._is_there:  # a disk that is mounted no more leaves an empty folder, where nothing must be written
            raise OSError(f"{self._name} is gone")
        self._held.check()

    @contextmanager
    def _reading(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            fault = f"the store must be readable, but {error}"
            if isinstance(error, NotADirectoryError) and Path(self._name).is_file():
                fault = f"a store must be a folder or a bucket, but {self._name} is a file"
            raise FaultsError(f"store {self._name}", [fault]) from error

    @contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise FaultsError(f"store {self._name}", [f"the store must be writable, but {error}"]) from error


@contextmanager
def _tolerating(failure: str) -> Iterator[None]:
    """Log what the storage refuses that no sweep depends on."""
    try:
        yield
    except OSError as error:
        logger.warning("%s: %s", failure, error)
