"""The folder of segments: immutable Parquet files of records, added whole and replaced whole."""

from __future__ import annotations

import io
import logging
import re
import uuid
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import pyarrow as pa
import pyarrow.parquet as pq

from orchestrator.record import TrialStatus
from orchestrator.store.files import Folder
from orchestrator.store.schema import conform, unify

logger = logging.getLogger(__name__)

_NAME = re.compile(r"part-(?P<number>\d{8,})-[0-9a-f]{8}\.parquet")
_ATTEMPTS = 20  # of a reader whose files are compacted away under its hands
_READERS = 8  # requests under way at once; an object store answers each in tens of milliseconds

T = TypeVar("T")


def parquet_bytes(table: pa.Table) -> bytes:
    sink = io.BytesIO()
    pq.write_table(table, sink, compression="zstd")
    return sink.getvalue()


class Segments:
    """The records of a sweep as numbered Parquet files, of which a later one wins over an earlier one.

    One process writes at a time, any number may read meanwhile. A segment is never changed: it is added under a new
    number or replaced, first by writing what takes its place and only then by deleting it. A crash in between leaves
    the same record twice, of which readers take the later, so nothing is lost and nothing counted twice.

    Files that are no segment, or a torn one, are left where they are, named in one warning, and not read.
    """

    def __init__(self, folder: Folder) -> None:
        self._folder = folder
        self._warned: set[str] = set()
        self._seen: dict[str, dict[str, TrialStatus]] = {}  # segment -> trial_id -> status; segments never change

    def read(self) -> pa.Table:
        """Every record, one row a trial, in the order in which they were added. Raises `OSError`."""
        return self._consistently(lambda names: latest(unify(self._tables(names))))

    def statuses(self) -> dict[str, TrialStatus]:
        """trial_id -> status of every record. Reads only what it has not read before. Raises `OSError`."""
        return self._consistently(self._statuses)

    def add(self, table: pa.Table) -> str:
        """Write one more segment and return its name. Raises `OSError`, and then there is no new segment."""
        numbers = [int(match["number"]) for name in self._folder.names() if (match := _NAME.fullmatch(name))]
        name = f"part-{max(numbers, default=0) + 1:08d}-{uuid.uuid4().hex[:8]}.parquet"
        self._folder.write(name, parquet_bytes(table))
        return name

    def replace_all(self, change: Callable[[pa.Table], pa.Table]) -> None:
        """Put one segment in the place of all: what `change` makes of their rows. Raises `OSError`."""
        names = self._segment_names()
        tables = dict(zip(names, self._tables_or_none(names), strict=True))
        readable = [name for name in names if tables[name] is not None]
        rows = change(latest(unify([tables[name] for name in readable])))
        if rows.num_rows:
            self.add(rows)
        for name in readable:
            self._folder.delete(name)
        for name in self._folder.names():
            if name.startswith(".part-") and name.endswith(".tmp"):  # a writer died here
                self._folder.delete(name)

    def __len__(self) -> int:
        return len(self._segment_names())

    def _consistently(self, read: Callable[[Sequence[str]], T]) -> T:
        """What `read` makes of the segments, begun again where one of them is replaced meanwhile."""
        for attempt in range(1, _ATTEMPTS + 1):
            try:
                return read(self._segment_names())
            except FileNotFoundError:
                if attempt == _ATTEMPTS:
                    raise
        raise AssertionError("unreachable")

    def _segment_names(self) -> list[str]:
        names = [name for name in self._folder.names() if not name.startswith(".")]
        for name in names:
            if not _NAME.fullmatch(name):
                self._warn(name, "it is not named like a segment")
        return [name for name in names if _NAME.fullmatch(name)]

    def _statuses(self, names: Sequence[str]) -> dict[str, TrialStatus]:
        fresh = [name for name in names if name not in self._seen]
        for name, table in zip(fresh, self._tables_or_none(fresh), strict=True):
            if table is None:
                self._seen[name] = {}
                continue
            ids, statuses = table["trial_id"].to_pylist(), table["status"].to_pylist()
            self._seen[name] = {i: TrialStatus(status) for i, status in zip(ids, statuses, strict=True)}
        self._seen = {name: self._seen[name] for name in names}
        return {trial_id: status for name in names for trial_id, status in self._seen[name].items()}

    def _tables(self, names: Sequence[str]) -> list[pa.Table]:
        return [table for table in self._tables_or_none(names) if table is not None]

    def _tables_or_none(self, names: Sequence[str]) -> list[pa.Table | None]:
        """Each segment's rows; None for one that cannot be understood. Raises `OSError` where it cannot be read."""
        if not names:
            return []
        with ThreadPoolExecutor(min(_READERS, len(names))) as pool:
            return list(pool.map(self._table, names))

    def _table(self, name: str) -> pa.Table | None:
        content = self._folder.read(name)  # a failing file system is not a torn file, and raises
        try:
            return conform(pq.ParquetFile(pa.BufferReader(content)).read())
        except (pa.ArrowException, OSError, ValueError) as error:
            self._warn(name, str(error))
            return None

    def _warn(self, name: str, reason: str) -> None:
        if name not in self._warned:
            self._warned.add(name)
            logger.warning("%s is ignored, because it is torn or not the store's: %s", self._folder.at(name), reason)


def latest(table: pa.Table) -> pa.Table:
    """The last row of each trial_id, in the order of the rows."""
    last = {trial_id: row for row, trial_id in enumerate(table["trial_id"].to_pylist())}
    return table if len(last) == table.num_rows else table.take(pa.array(sorted(last.values()), pa.int64()))
