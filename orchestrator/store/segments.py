"""The folder of segments: immutable Parquet files of records, added whole and replaced whole."""

from __future__ import annotations

import functools
import hashlib
import io
import logging
import re
import uuid
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from orchestrator.record import TrialStatus
from orchestrator.store.fence import lost
from orchestrator.store.files import Folder
from orchestrator.store.schema import FIXED, IDENTITY, conform, unify

logger = logging.getLogger(__name__)

NAME = re.compile(r"part-(?P<number>\d{8,})-[0-9a-f]{8}\.parquet")
FENCE = b"adaptune.fence"  # in the metadata of a segment without records that keeps a number from another driver
MERGE_EVERY = 64  # segments that are added before they are merged
ATTEMPTS = 20  # of a reader whose files are merged away under its hands
_READERS = 8  # requests under way at once; an object store answers each in tens of milliseconds

T = TypeVar("T")
R = TypeVar("R")


def parquet_bytes(table: pa.Table) -> bytes:
    sink = io.BytesIO()
    pq.write_table(table, sink, compression="zstd")
    return sink.getvalue()


def segment_name(number: int, content: bytes | pa.Buffer) -> str:
    """A name that sorts by number. Writing the same content under the same number again changes nothing."""
    return f"part-{number:08d}-{hashlib.sha256(content).hexdigest()[:8]}.parquet"


class Segments:
    """The records of a sweep as numbered Parquet files, of which a later one wins over an earlier one.

    One process writes at a time, any number may read meanwhile. A segment is never changed: it is added under a new
    number or replaced, first by writing what takes its place, under the number of the last one replaced, and only then
    by deleting it. A crash in between leaves the same record twice, of which readers take the later, so nothing is lost
    and nothing counted twice.

    Files that are no segment, or a torn one, are left where they are, named in one warning, and not read.
    """

    def __init__(self, folder: Folder) -> None:
        self._folder = folder
        self._warned: set[str] = set()
        self._seen: dict[str, dict[str, TrialStatus]] = {}  # segment -> trial_id -> status; segments never change
        self._is_owner = False
        self._check_lock: Callable[[], None] = lambda: None
        self._listed: list[str] | None = None  # the owner's own list, in place of the folder's
        self._known: dict[str, TrialStatus] | None = None  # and all that is in them
        self._added = 0  # since segments were last merged
        self._unanswered: bytes | None = None  # a segment that failed to be written, and may be there all the same

    @contextmanager
    def owned(
        self, *, after_another: bool | None = False, check_lock: Callable[[], None] = lambda: None
    ) -> Iterator[None]:
        """For a block, be the only one that writes, and keep in mind what is there instead of looking each time.

        Args:
            after_another: whether one that wrote before may not know that it does no more; None where nobody can tell.
            check_lock: raises `StoreLockedError` where the lock is another driver's.
        """
        self._is_owner, self._check_lock = True, check_lock
        try:
            if after_another is not False and self._folder.fence.put_new is not None:
                self._fence_off(is_certain=bool(after_another))
            yield
        finally:
            self._is_owner = False
            self._forget()

    def read(self) -> pa.Table:
        """Every record, one row a trial, in the order in which they were added. Raises `OSError`."""
        return self._consistently(lambda names: latest(unify(_present(self._tables(names)))))

    def read_without_epochs(self) -> tuple[pa.Table, Callable[[], pa.Table]]:
        """`read` without the column "epochs", which takes longer than all others, and a function that gives the rest.

        Of the same rows that is the columns of `IDENTITY` and "epochs". The function parses the bytes that are read
        now, so it does not matter what is added or merged meanwhile.
        """
        contents = self._consistently(self._contents)
        without = self._parsed(contents, lambda column: column != "epochs")
        epochs = functools.partial(self._parsed, contents, lambda column: column == "epochs" or column in IDENTITY)
        return without.drop_columns(["epochs"]), lambda: epochs().select([*IDENTITY, "epochs"])

    def statuses(self) -> Mapping[str, TrialStatus]:
        """trial_id -> status of every record, not to be changed. Reads only what is new to it. Raises `OSError`."""
        if self._known is None or not self._is_owner:
            self._known = self._consistently(self._statuses)
        return self._known

    def add(self, table: pa.Table) -> None:
        """Write one more segment. Raises `OSError`, and then there is none; trying again never makes two of it."""
        names = self.segment_names()
        number = 1 + (_number(names[-1]) if names else 0)
        content = parquet_bytes(table)
        if self._folder.fence.put_new is None:
            name = segment_name(number, content)
            self._folder.write(name, content)
        else:
            name = _slot(number)
            try:
                while not self._folder.write_new(name, content):
                    self._pass_by(name)
                    number += 1
                    name = _slot(number)
            except OSError:
                self._unanswered = content
                raise
            self._unanswered = None
        self._added += 1
        if self._is_owner and self._listed is not None:
            self._listed.append(name)
            self._seen[name] = _statuses_of(table)
            if self._known is not None:
                self._known.update(self._seen[name])

    def tidy(self) -> None:
        """Merge the newest segments once there are `MERGE_EVERY` new ones, and older ones no larger than these.

        So a record is written anew about log2(records / 64) times, and there are never many more than 64 segments.
        Raises `OSError`; it is tried again after as many more.
        """
        if self._added < MERGE_EVERY:
            return
        self._added = 0
        self.statuses()
        names = self.segment_names()
        start = max(0, len(names) - MERGE_EVERY)
        total = sum(len(self._seen[name]) for name in names[start:])
        while start and len(self._seen[names[start - 1]]) <= total:
            start -= 1
            total += len(self._seen[names[start]])
        self._merge(names[start:])

    def merge_all(self) -> None:
        """Make one segment of all, and remove what a writer that died has left. Raises `OSError`."""
        self._merge(self.segment_names())
        for name in self._folder.names():
            if name.startswith(".part-") and name.endswith(".tmp"):
                self._folder.discard(name)

    def holding(self, trial_ids: Collection[str]) -> Iterator[tuple[str, pa.Table]]:
        """The segments that hold records of these trials, each by name with just those rows."""
        for name in self.segment_names():
            table = self._table(name)
            rows = None if table is None else table.filter(_is_of(table, trial_ids))
            if rows is not None and rows.num_rows:
                yield name, rows

    def remove(self, name: str, trial_ids: Collection[str]) -> None:
        """Put a segment without the records of these trials in the place of one with them. Raises `OSError`."""
        table = self._table(name)
        if table is not None:
            self.replace([name], table.filter(pc.invert(_is_of(table, trial_ids))))

    def _fence_off(self, *, is_certain: bool) -> None:
        """Occupy the next number with a segment of no records: the driver before would write its next one there.

        It stays for good, however late that driver is. Raises `OSError`.
        """
        nothing = unify([]).replace_schema_metadata({FENCE: uuid.uuid4().hex})  # like no other one
        for _ in range(ATTEMPTS):
            self._forget()
            names = self.segment_names()
            if not names and not is_certain:  # a new store
                return
            if self._folder.write_new(_slot(1 + _number(names[-1]) if names else 1), parquet_bytes(nothing)):
                self._forget()
                return
        raise OSError(f"{self._folder.path}: another driver adds records all the time")

    def _pass_by(self, name: str) -> None:
        """Raises `StoreLockedError` where whoever took this number may be at work; else the next one is this driver's.

        A driver that lost its store in the moment in which it took it has still fenced off the one before it, and this
        one with it. Whoever holds the lock after having seen that fence is the only one at work. A number may also be
        taken by this driver itself, where the answer to its last attempt was lost and more records came since.
        """
        content = self._folder.read(name).to_pybytes()
        is_own = content == self._unanswered
        if not is_own and not _is_fence(content):
            raise lost(self._folder.path, "another driver")
        self._check_lock()
        if is_own:
            self._forget()  # what it holds is added again with the rest, and the later one counts
        elif self._listed is not None:
            self._listed.append(name)
            self._seen[name] = {}

    def _merge(self, names: Sequence[str]) -> None:
        tables = dict(zip(names, self._tables(names), strict=True))
        readable = [name for name in names if (table := tables[name]) is not None and table.num_rows]
        if len(readable) > 1:
            self.replace(readable, latest(unify([tables[name] for name in readable])))

    def replace(self, names: Sequence[str], rows: pa.Table) -> None:
        """Put one segment of these rows in the place of several; none, where there is no row."""
        try:
            kept = None
            if rows.num_rows:
                content = parquet_bytes(rows)
                kept = segment_name(_number(names[-1]), content)
                self._folder.write(kept, content, durable=True)
                self._seen[kept] = _statuses_of(rows)
            for name in names:
                if name != kept:
                    self._folder.discard(name)
        finally:
            self._forget()

    def _forget(self) -> None:
        self._listed = self._known = None

    def _consistently(self, read: Callable[[Sequence[str]], T]) -> T:
        """What `read` makes of the segments, begun again where one of them is replaced meanwhile."""
        for attempt in range(1, ATTEMPTS + 1):
            try:
                return read(self.segment_names())
            except FileNotFoundError:
                self._forget()
                if attempt == ATTEMPTS:
                    raise
        raise AssertionError("unreachable")

    def segment_names(self) -> list[str]:
        if self._is_owner and self._listed is not None:
            return self._listed
        names = [name for name in self._folder.names() if not name.startswith(".")]
        for name in names:
            if not NAME.fullmatch(name):
                self._warn(name, "it is not named like a segment")
        self._listed = [name for name in names if NAME.fullmatch(name)]
        return self._listed

    def _statuses(self, names: Sequence[str]) -> dict[str, TrialStatus]:
        contents = self._contents([name for name in names if name not in self._seen])
        for name, content in contents.items():
            table = self._parse(name, content, IDENTITY.__contains__)
            self._seen[name] = {} if table is None else _statuses_of(table)
        self._seen = {name: self._seen[name] for name in names}
        return {trial_id: status for name in names for trial_id, status in self._seen[name].items()}

    def _tables(self, names: Sequence[str]) -> list[pa.Table | None]:
        """Each segment's rows; None for one that cannot be understood. Raises `OSError` where it cannot be read."""
        return _in_parallel(self._table, names)

    def _table(self, name: str) -> pa.Table | None:
        return self._parse(name, self._folder.read(name))  # a failing file system is not a torn file, and raises

    def _contents(self, names: Sequence[str]) -> dict[str, pa.Buffer]:
        return dict(zip(names, _in_parallel(self._folder.read, names), strict=True))

    def _parsed(self, contents: Mapping[str, pa.Buffer], is_wanted: Callable[[str], bool]) -> pa.Table:
        """Every record in these segments, by name, with the columns that are wanted."""
        tables = _in_parallel(lambda segment: self._parse(*segment, is_wanted), contents.items())
        return latest(unify(_present(tables)))

    def _parse(
        self, name: str, content: pa.Buffer, is_wanted: Callable[[str], bool] = lambda column: True
    ) -> pa.Table | None:
        """The rows of a segment; None for one that cannot be understood, which is reported.

        Columns that are not wanted are null, unless only reading them tells whether the file is whole.
        """
        try:
            file = pq.ParquetFile(pa.BufferReader(content))
            if not _is_as_written(name, content, file.schema_arrow):
                return conform(file.read())
            table = file.read([column for column in file.schema_arrow.names if is_wanted(column)])
            if "epochs" not in table.column_names:
                table = table.append_column("epochs", pa.nulls(len(table), FIXED["epochs"]))
            return conform(table)
        except Exception as error:  # whatever Arrow makes of bytes that are anybody's
            self._warn(name, str(error))
            return None

    def _warn(self, name: str, reason: str) -> None:
        if name not in self._warned:
            self._warned.add(name)
            logger.warning("%s is ignored, because it is torn or not the store's: %s", self._folder.at(name), reason)


def latest(table: pa.Table) -> pa.Table:
    """The last row of each trial_id, in the order of the rows."""
    if pc.count_distinct(table["trial_id"], mode="all").as_py() == table.num_rows:
        return table
    last = {trial_id: row for row, trial_id in enumerate(table["trial_id"].to_pylist())}
    return table.take(pa.array(sorted(last.values()), pa.int64()))


def _in_parallel(function: Callable[[T], R], values: Collection[T]) -> list[R]:
    if not values:
        return []
    with ThreadPoolExecutor(min(_READERS, len(values))) as pool:
        return list(pool.map(function, values))


def _present(tables: Iterable[pa.Table | None]) -> list[pa.Table]:
    return [table for table in tables if table is not None]


def _is_as_written(name: str, content: pa.Buffer, schema: pa.Schema) -> bool:
    """Whether a file has the bytes that its name was made of, and epochs of today's type: then all of it can be read.

    Of any other file that has to be tried.
    """
    is_typed = schema.get_field_index("epochs") >= 0 and schema.field("epochs").type == FIXED["epochs"]
    return is_typed and segment_name(_number(name), content) == name


def _is_fence(content: bytes) -> bool:
    try:
        file = pq.ParquetFile(pa.BufferReader(content))
    except pa.ArrowInvalid:
        return False
    return not file.metadata.num_rows and FENCE in (file.schema_arrow.metadata or {})


def _statuses_of(table: pa.Table) -> dict[str, TrialStatus]:
    kinds = {status.value: status for status in TrialStatus}
    ids, statuses = table["trial_id"].to_pylist(), table["status"].to_pylist()
    return {trial_id: kinds[status] for trial_id, status in zip(ids, statuses, strict=True)}


def _is_of(table: pa.Table, trial_ids: Collection[str]) -> pa.Array:
    return pc.is_in(table["trial_id"], pa.array(sorted(trial_ids), pa.string()))


def _slot(number: int) -> str:
    """The name of a segment of which there can be one for each number."""
    return f"part-{number:08d}-00000000.parquet"


def _number(name: str) -> int:
    match = NAME.fullmatch(name)
    if match is None:
        raise ValueError(f"{name} is not named like a segment")
    return int(match["number"])
