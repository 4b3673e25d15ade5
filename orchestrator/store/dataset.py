"""Store: everything a sweep leaves behind, in one folder that outlives adaptune."""

from __future__ import annotations

import hashlib
import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pyarrow.fs import FileSystem

from orchestrator.engine_status import EngineStatus
from orchestrator.record import TrialRecord, TrialStatus
from orchestrator.store.artifacts import read_ablations, write_artifacts
from orchestrator.store.curves import epochs_table
from orchestrator.store.files import Folder, open_folder
from orchestrator.store.lock import Holder, hold, holder
from orchestrator.store.rows import records_from_table, table_from_records
from orchestrator.store.segments import Segments, parquet_bytes
from orchestrator.store.working import Working, read_note, remove_note, write_note
from trainables.faults import FaultsError

_SPEC = "spec.json"
_PLAN = "plan.parquet"


class Store:
    """A sweep's folder: its spec, its plan and one record for every trial that has ended.

    `uri` is a local path or a `file://`, `s3://` or `gs://` URI. Making a Store reads and writes nothing.

    - One process writes at a time, inside `lock()`; any number may read meanwhile, and never see half a record.
    - `trials/` holds at most one record a trial. A record is never changed. One of a failed or cancelled trial may
      be retired, which moves it to `superseded/`; nothing is ever thrown away.
    - What an `append` has returned from survives the death of the process. A write that fails raises `OSError` and
      leaves the store as readable as it was.
    - A file in `trials/` that is torn or not the store's is named in a warning and otherwise left alone.
    """

    def __init__(self, uri: str | os.PathLike[str], *, filesystem: FileSystem | None = None) -> None:
        """`filesystem` replaces the one that the URI names; `uri` is then a path on it.

        Raises `FaultsError` where the URI cannot be understood.
        """
        self.uri = os.fspath(uri)
        self._folder = Folder(filesystem, self.uri.rstrip("/")) if filesystem is not None else open_folder(uri)
        self._name = re.sub("//[^/]*@", "//", self.uri).partition("?")[0]  # to be shown: no keys, no settings
        self._segments = Segments(self._folder.folder("trials"))

    @property
    def filesystem(self) -> FileSystem:
        return self._folder.filesystem

    @property
    def path(self) -> str:
        """Where the store lies on its `filesystem`; other folders of the sweep, such as `report`, lie below it."""
        return self._folder.path

    def exists(self) -> bool:
        """Whether a sweep has been stored here."""
        return self._folder.exists(_SPEC)

    def create(self, spec_json: str, plan_table: pa.Table) -> None:
        """Begin a store. Raises `FaultsError` where there is one already or the place cannot be written."""
        if self.exists():
            raise FaultsError(
                f"store {self.uri}", ["a new store needs a free place, but a sweep is stored here already"]
            )
        self._write_spec_and_plan(spec_json, plan_table)

    def widen(self, spec_json: str, plan_table: pa.Table) -> None:
        """Replace spec and plan, and keep the earlier ones in `history/`. Without a change, nothing is written.

        Raises `FaultsError` where there is no store or it cannot be written.
        """
        if self.spec_json() == spec_json and self.plan_table().equals(plan_table):
            return
        number = 1 + len({name.partition("-")[0] for name in self._folder.folder("history").names()})
        with self._writing():
            self._folder.copy(_SPEC, f"history/{number:04d}-{_SPEC}")
            self._folder.copy(_PLAN, f"history/{number:04d}-{_PLAN}")
        self._write_spec_and_plan(spec_json, plan_table)

    def spec_json(self) -> str:
        """The resolved spec. Raises `FaultsError` where there is no store."""
        return self._read(_SPEC).to_pybytes().decode()

    def plan_table(self) -> pa.Table:
        """The planned trials. Raises `FaultsError` where there is no store."""
        return pq.ParquetFile(pa.BufferReader(self._read(_PLAN))).read()

    def lock(self) -> AbstractContextManager[None]:
        """Be this store's only driver for a `with` block; the folder is made where there is none.

        Raises `StoreLockedError` on entering where another driver is at work, with its host and process.
        """
        return hold(self._folder)

    def holder(self) -> Holder | None:
        """The driver that is at work on this store, seen from anywhere; None where there is none."""
        return holder(self._folder)

    def note_working(self, engines: Sequence[EngineStatus]) -> None:
        """Leave a note of what the engines are doing, in the place of the one before. Never raises `OSError`."""
        write_note(self._folder, engines)

    def end_working(self) -> None:
        """Take the note of the engines away: they do nothing more."""
        remove_note(self._folder)

    def working(self) -> Working | None:
        """What the engines of the driver at work were last seen to do; None where no driver is, or it has not said."""
        at_work, note = self.holder(), read_note(self._folder)
        if at_work is None or note is None or (note.host, note.pid) != (at_work.host, at_work.pid):
            return None  # of a driver that was killed
        return note

    def append(self, records: Sequence[TrialRecord]) -> None:
        """Add records, all or none. Raises `ValueError` before anything is written where a trial has one already."""
        if not records:
            return
        present = self.statuses()
        counts = Counter(record.trial_id for record in records)
        if twice := sorted(trial_id for trial_id, count in counts.items() if count > 1 or trial_id in present):
            raise ValueError(f"a trial has one record, but there would be a second of {', '.join(twice)}")
        self._segments.add(table_from_records(records))

    def retire(self, trial_ids: Iterable[str]) -> int:
        """Move the records of failed or cancelled trials to `superseded/`, so that the trials can be run again.

        Ids without a record are passed over. Returns how many records were moved. Raises `ValueError` before
        anything is written where one of the trials has finished.
        """
        wanted = set(trial_ids)
        held = {trial_id: status for trial_id, status in self.statuses().items() if trial_id in wanted}
        if finished := sorted(trial_id for trial_id, status in held.items() if status.is_finished()):
            raise ValueError(f"finished trials keep their records, but {', '.join(finished)} should be retired")
        if not held:
            return 0
        ids = pa.array(sorted(held), pa.string())
        rows = self._segments.read()
        # Named by its content: retiring the same records again after a crash leaves the same one file.
        content = parquet_bytes(rows.filter(pc.is_in(rows["trial_id"], ids)))
        self._folder.write(f"superseded/part-{hashlib.sha256(content).hexdigest()[:16]}.parquet", content)
        self._segments.replace_all(lambda table: table.filter(pc.invert(pc.is_in(table["trial_id"], ids))))
        return len(held)

    def compact(self) -> None:
        """Merge all segments into one with one schema, which is quicker to read and easier on other tools."""
        if len(self._segments) > 1:
            self._segments.replace_all(lambda table: table)

    def trials(self) -> pa.Table:
        """One row a trial that has ended, in the order in which they were recorded.

        The columns and their types are those of `orchestrator.store.schema`, which an empty store has too.
        """
        return self._segments.read().drop_columns(["epochs"])

    def epochs(self) -> pa.Table:
        """One row per trial and epoch; see `orchestrator.store.curves`."""
        return epochs_table(self._segments.read())

    def records(self) -> list[TrialRecord]:
        """All records, in the order in which they were added."""
        return records_from_table(self._segments.read())

    def statuses(self) -> dict[str, TrialStatus]:
        """trial_id -> status of every trial that has ended. Asking again reads only what is new."""
        return self._segments.statuses()

    def finished_ids(self) -> frozenset[str]:
        """The trials that need no more training."""
        return frozenset(trial_id for trial_id, status in self.statuses().items() if status.is_finished())

    def ablations(self) -> pa.Table | None:
        """Every ablation of a trial that is kept here, one under the other; None where there is none."""
        return read_ablations(self._folder)

    def keep_artifacts(self, trial_id: str, files: Mapping[str, bytes]) -> tuple[str, ...]:
        """Keep files made of a trial in `artifacts/<trial id>/`, each in one step, in the order given.

        Returns their places below the store's URI. Raises `FaultsError` where the place cannot be written.
        """
        with self._writing():
            write_artifacts(self._folder, trial_id, files)
        return tuple(f"{self.uri.rstrip('/')}/artifacts/{trial_id}/{name}" for name in files)

    def _write_spec_and_plan(self, spec_json: str, plan_table: pa.Table) -> None:
        with self._writing():
            self._folder.write(_PLAN, parquet_bytes(plan_table))
            self._folder.write(_SPEC, spec_json.encode())  # last: where it is, the store is whole

    @contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise FaultsError(f"store {self._name}", [f"the store must be writable, but {error}"]) from error

    def _read(self, name: str) -> pa.Buffer:
        try:
            return self._folder.read(name)
        except FileNotFoundError as error:
            raise FaultsError(f"store {self._name}", [f"there is no sweep stored here: {name} is missing"]) from error
