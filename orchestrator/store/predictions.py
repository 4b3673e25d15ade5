"""What trained models predicted of each row: Parquet files in `predictions/`, with the rows they are of in `rows/`.

A file holds the predictions of trials whose records were added together; small ones are merged now and then. Nothing
but a question for predictions reads them.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from orchestrator.store.files import Folder
from orchestrator.store.prediction_table import COLUMN, SCHEMA, file_bytes, read_file, trainings_in, trial_table
from orchestrator.store.segments import ATTEMPTS, MERGE_EVERY, NAME, parquet_bytes, segment_name
from trainables.faults import FaultsError
from trainables.predictions import VALUE_TYPES, Predictions, hash_texts, label_array

logger = logging.getLogger(__name__)

FOLDER, ROWS = "predictions", "rows"
# A file of so many bytes is not merged again.
LARGE = 4 * 2**20
# So many smaller ones are merged once they have as many bytes together: a fraction of a second's work now and then.
FEW_FILES = 8
_READERS = 8  # requests under way at once
_REMEDY = (
    "put back a copy of the file or delete it, which no other answer needs; `python -m trainables --predictions` "
    "trains a trial again and writes what it predicts"
)


@dataclass(frozen=True, kw_only=True)
class TrialPredictions:
    """What one training predicted, by split. `started_at` tells it from other trainings of the same trial."""

    started_at: str
    splits: Mapping[str, Predictions]


class PredictionFiles:
    """The predictions of a store. One process writes at a time, any number may read meanwhile.

    Files are written, replaced and read like segments of records. Predictions of a training that has no record, since
    the driver died between the two, are never asked for, and stay.
    """

    def __init__(self, folder: Folder) -> None:
        self._folder = folder
        self._rows = folder.folder(ROWS)
        self._index: dict[str, Mapping[str, list[str]] | None] = {}  # file -> its trainings; None: it is torn
        self._known_rows: set[str] = set()
        self._is_owner = False
        # The owner's number of the last file, and the bytes of those that are not large.
        self._last: int | None = None
        self._small: dict[str, int] | None = None

    @contextmanager
    def owned(self) -> Iterator[None]:
        """For a block, be the only one that writes, and keep in mind what is there instead of looking each time."""
        self._is_owner = True
        try:
            yield
        finally:
            self._is_owner, self._last, self._small = False, None, None

    def add(self, trials: Mapping[str, TrialPredictions]) -> None:
        """Write the predictions of trials as one file, and the rows they are of, where these are new.

        Raises `OSError`, and then the file is not there.
        """
        tables = []
        for trial_id, trial in trials.items():
            for split, found in trial.splits.items():
                self._keep_rows(found)
                tables.append(trial_table(trial_id, trial.started_at, split, found))
        if not tables:
            return
        content = file_bytes(tables)
        number = 1 + self._last_number()
        name = segment_name(number, content)
        self._folder.write(name, content)
        self._last = number
        if self._small is not None and len(content) < LARGE:
            self._small[name] = len(content)

    def tidy(self) -> None:
        """Merge small files once together they are `LARGE`, or `MERGE_EVERY` of them. Raises `OSError`."""
        if self._small is None or not self._is_owner:
            self._small = {name: size for name, size in self._sizes().items() if size < LARGE}
        small = self._small
        if len(small) >= MERGE_EVERY or (len(small) >= FEW_FILES and sum(small.values()) >= LARGE):
            self._merge(small)

    def merge_all(self) -> None:
        """Merge all small files, and remove what a writer that died has left. Raises `OSError`."""
        self._merge(self._sizes())
        for folder in (self._folder, self._rows):
            for name in folder.names():
                if name.startswith(".") and name.endswith(".tmp"):
                    folder.discard(name)

    def read(self, trainings: Mapping[str, str | None], split: str | None = None) -> dict[str, pa.Table]:
        """What trainings predicted, of trials as `trial_id -> started_at`; none of those without predictions here.

        A table a trial, of one split or of all in the order they were evaluated. Columns: trial_id, split, rows (the
        id of the split's rows), row, row_hash, label, prediction, scores, classes. Raises `FaultsError` naming a file
        that is torn and may hold what is asked for, and `OSError`.
        """
        for attempt in range(1, ATTEMPTS + 1):
            try:
                return self._read(trainings, split)
            except FileNotFoundError:  # merged away meanwhile
                if attempt == ATTEMPTS:
                    raise
        raise AssertionError("unreachable")

    def _read(self, trainings: Mapping[str, str | None], split: str | None) -> dict[str, pa.Table]:
        index = self._indexed()
        left = dict(trainings)
        found: dict[str, pa.Table] = {}
        for name in sorted(index, reverse=True):  # of the same training twice, the later
            here = index[name] or {}
            wanted = {i: at for i, at in left.items() if at in here.get(i, ())}
            if wanted:
                found |= self._read_file(name, wanted, split)
                left = {trial_id: at for trial_id, at in left.items() if trial_id not in wanted}
        if left and (torn := sorted(name for name, here in index.items() if here is None)):
            files = ", ".join(self._folder.at(name) for name in torn)
            few = ", ".join(sorted(left)[:3]) + (f" and {len(left) - 3} more" if len(left) > 3 else "")
            fault = f"{files} is torn or not the store's, and may hold what {few} predicted; {_REMEDY}"
            raise FaultsError("predictions", [fault])
        return found

    def _read_file(self, name: str, wanted: Mapping[str, str | None], split: str | None) -> dict[str, pa.Table]:
        table = self._rows_of_trials(name, wanted, split)
        tables: dict[str, pa.Table] = {}
        known: dict[str, pa.Table] = {}  # most trials of a file are of the same few rows
        for trial_id, started_at in wanted.items():
            is_its = pc.and_(pc.equal(table["trial_id"], trial_id), pc.equal(table["started_at"], started_at))
            its = table.filter(is_its)
            splits = [its.filter(pc.equal(its["split"], each)) for each in pc.unique(its["split"]).to_pylist()]
            if splits:
                tables[trial_id] = pa.concat_tables([self._joined(each, name, known) for each in splits])
        return tables

    def _rows_of_trials(self, name: str, wanted: Mapping[str, str | None], split: str | None) -> pa.Table:
        with self._folder.filesystem.open_input_file(self._folder.at(name)) as source:
            try:
                file = pq.ParquetFile(source, page_checksum_verification=True, pre_buffer=True)
                groups = [
                    group
                    for group in range(file.num_row_groups)
                    if _may_hold(file.metadata.row_group(group).column(0).statistics, wanted)
                ]
                table = file.read_row_groups(groups)
                table.validate(full=True)
                table = table.cast(SCHEMA)
            except Exception as error:  # whatever Arrow makes of bytes that are anybody's
                self._folder.read(name)  # a failing file system is not a torn file, and raises
                raise self._torn(self._folder.at(name), error) from error
        table = table.filter(pc.is_in(table["trial_id"], pa.array(sorted(wanted), pa.string())))
        return table if split is None else table.filter(pc.equal(table["split"], split))

    def _joined(self, table: pa.Table, name: str, known: dict[str, pa.Table]) -> pa.Table:
        """Predictions of one training and split with what is known of the rows they are of, which `known` remembers."""
        kind, rows_id = table["kind"][0].as_py(), table["rows"][0].as_py()
        if rows_id not in known:
            known[rows_id] = self._read_rows(rows_id)
        rows = known[rows_id]
        if rows.num_rows != table.num_rows:
            reason = f"it has {rows.num_rows} rows, and {name} has {table.num_rows} predictions"
            raise self._torn(self._rows.at(f"{rows_id}.parquet"), ValueError(reason))
        return pa.table(
            {
                "trial_id": table["trial_id"],
                "split": table["split"],
                "rows": table["rows"],
                "row": table["row"].cast(pa.int64()),
                "row_hash": rows["row_hash"],
                "label": rows["label"],
                "prediction": table[COLUMN[kind]].cast(VALUE_TYPES[kind]),
                "scores": table["scores"],
                "classes": table["classes"]
                if COLUMN[kind] != "classes"
                else pa.nulls(len(table), SCHEMA.field("classes").type),
            }
        )

    def _read_rows(self, rows_id: str) -> pa.Table:
        """row_hash and label of each row."""
        place = f"{rows_id}.parquet"
        try:
            content = self._rows.read(place)
        except FileNotFoundError as error:
            remedy = "put back a copy of it, or train a trial of the task in this store, which writes it anew"
            fault = f"{self._rows.at(place)} must be there, with the labels of the rows, but is missing; {remedy}"
            raise FaultsError("predictions", [fault]) from error
        try:
            rows = pq.ParquetFile(pa.BufferReader(content), page_checksum_verification=True).read()
            return pa.table({"row_hash": rows["row_hash"].cast(pa.string()), "label": rows["label"]})
        except Exception as error:
            raise self._torn(self._rows.at(place), error) from error

    def _torn(self, place: str, error: Exception) -> FaultsError:
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        return FaultsError("predictions", [f"{place} must be as adaptune wrote it, but {reason}; {_REMEDY}"])

    def _indexed(self) -> dict[str, Mapping[str, list[str]] | None]:
        """Which trainings each file is of. Reads the ends of files that are new to it."""
        names = list(self._sizes())
        fresh = [name for name in names if name not in self._index]
        if fresh:
            with ThreadPoolExecutor(min(_READERS, len(fresh))) as pool:
                self._index |= dict(zip(fresh, pool.map(self._trainings, fresh), strict=True))
        self._index = {name: self._index[name] for name in names}
        return self._index

    def _trainings(self, name: str) -> Mapping[str, list[str]] | None:
        with self._folder.filesystem.open_input_file(self._folder.at(name)) as source:
            try:
                return trainings_in(pq.read_metadata(source))
            except Exception:  # whatever Arrow makes of bytes that are anybody's
                self._folder.read(name)  # a failing file system is not a torn file, and raises
                logger.debug("%s is torn or not the store's", self._folder.at(name), exc_info=True)
                return None

    def _keep_rows(self, found: Predictions) -> None:
        rows = found.rows
        place = f"{rows.id}.parquet"
        if rows.id in self._known_rows:
            return
        if not self._rows.exists(place):
            table = pa.table({"row_hash": hash_texts(rows.hashes), "label": label_array(rows, found.kind)})
            self._rows.write(place, parquet_bytes(table))
        self._known_rows.add(rows.id)

    def _sizes(self) -> dict[str, int]:
        """The files by name, with their bytes, in the order of their numbers."""
        return {name: size for name, size in self._folder.sizes().items() if NAME.fullmatch(name)}

    def _last_number(self) -> int:
        if self._last is None or not self._is_owner:
            self._last = max((_number(name) for name in self._sizes()), default=0)
        return self._last

    def _merge(self, sizes: Mapping[str, int]) -> None:
        """Merge neighbours that are small, until they are large."""
        self._small = None
        together: list[str] = []
        total = 0
        for name, size in sizes.items():
            if size >= LARGE:
                continue
            together.append(name)
            total += size
            if total >= LARGE:
                self._replace(together)
                together, total = [], 0
        self._replace(together)

    def _replace(self, names: Iterable[str]) -> None:
        tables: list[pa.Table] = []
        merged: list[str] = []
        seen: set[tuple[str, str]] = set()
        for name in sorted(names, reverse=True):
            content = self._folder.read(name)
            try:
                table, trainings = read_file(content)
            except Exception as error:  # whatever Arrow makes of bytes that are anybody's
                logger.warning("%s is torn or not the store's, and is left alone: %s", self._folder.at(name), error)
                continue
            merged.append(name)
            own = {(trial_id, at) for trial_id, times in trainings.items() for at in times}
            for trial_id, started_at in own & seen:  # a driver died while it merged
                is_it = pc.and_(pc.equal(table["trial_id"], trial_id), pc.equal(table["started_at"], started_at))
                table = table.filter(pc.invert(is_it))
            seen |= own
            if table.num_rows:
                tables.append(table)
        if len(merged) < 2:
            return
        whole = file_bytes(tables)
        kept = segment_name(_number(merged[0]), whole)
        self._folder.write(kept, whole, durable=True)
        for name in merged:
            if name != kept:
                self._folder.discard(name)


def _number(name: str) -> int:
    match = NAME.fullmatch(name)
    assert match is not None, name
    return int(match["number"])


def _may_hold(statistics: pq.Statistics | None, wanted: Iterable[str]) -> bool:
    if statistics is None or not statistics.has_min_max:
        return True
    return any(statistics.min <= trial_id <= statistics.max for trial_id in wanted)
