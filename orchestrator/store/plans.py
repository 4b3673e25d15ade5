"""The sweeps of a store: what each asked for, and the trials that were planned for it.

`spec.json` and `plan.parquet` are those of the sweep last run, `sweeps/<name>/` holds those of the others. A search
that plans as it goes adds rows to `planned/`, small files that are merged into `plan.parquet` now and then.
"""

from __future__ import annotations

import functools
import json
import logging
import re
from collections.abc import Callable, Sequence
from typing import TypeVar

import pyarrow as pa
import pyarrow.parquet as pq

from orchestrator.spec.spec import SWEEP_NAME
from orchestrator.store.files import Folder
from orchestrator.store.segments import ATTEMPTS, MERGE_EVERY, NAME, latest, parquet_bytes, segment_name
from trainables.faults import FaultsError, unknown_name

logger = logging.getLogger(__name__)

SPEC, PLAN = "spec.json", "plan.parquet"
_SWEEPS, _PLANNED, _HISTORY = "sweeps", "planned", "history"
# In the metadata of a plan: the sweep it belongs to, and how many trials its search plans in the end.
_OWNER, _MOST = b"adaptune.sweep", b"adaptune.most_trials"
_TEXTS = ("trial_id", "config_id", "task", "method", "config")

T = TypeVar("T")


class Plans:
    """What was asked and planned, by sweep. Writing is for the driver; reading is for anybody meanwhile.

    Each step of a change leaves what reads as the state before or after it, but for a sweep that is just being put in
    the place of another one, which for a moment has no trial planned. All methods raise `FaultsError` where what is
    here is missing or odd, those that write where the place cannot be written; `add` and `merge` raise `OSError`.
    """

    def __init__(self, folder: Folder, shown: str) -> None:
        """`shown` is how the store is called in messages."""
        self._folder = folder
        self._shown = shown
        self._warned: set[str] = set()
        self._added = 0  # files, since they were last merged

    def exist(self) -> bool:
        return self._folder.exists(SPEC)

    def names(self) -> tuple[str, ...]:
        """The sweeps that are kept here: the one last run, then the others by name."""
        current = self._current()
        others = [name for name in self._folder.folder(_SWEEPS).folders() if name != current]
        kept = [name for name in others if self._archive(name).exists(SPEC) and not self._is_store(name)]
        return (current, *kept)

    def spec_json(self, name: str | None = None) -> str:
        """The resolved spec of a sweep, by default of the one last run."""
        return self._consistently(lambda: self._spec(name))

    def table(self, name: str) -> pa.Table:
        """The planned trials of a sweep, a row each."""
        return self._consistently(lambda: self._table(name))

    def all_tables(self) -> pa.Table:
        """The planned trials of all sweeps, each trial once."""
        return self._stacked([self.table(name) for name in self.names()])

    def unproposed(self, name: str) -> int:
        """How many more trials than are planned now the search of a sweep will propose at most."""
        table = self.table(name)
        most = (table.schema.metadata or {}).get(_MOST, b"0")
        return max(0, int(most) - table.num_rows) if most.isdigit() else 0

    def begin(self, spec_json: str, table: pa.Table, most_trials: int | None = None) -> None:
        """Make a sweep the one last run, with this spec and this plan.

        What either says otherwise now is kept in `history/`, and the sweep that was there in `sweeps/`.
        """
        name = _name_in(spec_json)
        plan = _owned(_conform(table), name, most_trials)
        current = self._current() if self.exist() else None
        if current is not None and current != name:
            if self._is_store(current):
                fault = f"{self._archive(current).path} is a store of its own, where sweep {current} should be kept"
                raise FaultsError(f"store {self._shown}", [f"{fault}; name another place with --store"])
            self._write(self._archive(current), self.spec_json(current), self.table(current), plan_first=True)
        if current is not None and name in self.names():
            before, planned = self.spec_json(name), self.table(name)
            is_same = before == spec_json and planned.equals(plan)
            if is_same and current == name and planned.schema.metadata == plan.schema.metadata:
                return
            if not is_same:
                self._keep(before, planned)
        # A spec without its plan reads as one of which nothing has been planned, and a resume plans it. In a new store
        # the spec comes last: where it is, the store is whole.
        self._write(self._folder, spec_json, plan, plan_first=current is None)
        for added in self._added_names():
            self._folder.folder(_PLANNED).discard(added)
        for file in () if self._is_store(name) else (SPEC, PLAN):
            self._archive(name).discard(file)

    def add(self, table: pa.Table) -> None:
        """Add planned trials to the sweep last run. They are durable when it returns. Raises `OSError`."""
        planned = self._folder.folder(_PLANNED)
        names = self._added_names()
        content = parquet_bytes(_owned(table, self._current(), None))
        number = 1 + max((int(match["number"]) for n in names if (match := NAME.fullmatch(n))), default=0)
        planned.write(segment_name(number, content), content, durable=True)
        self._added += 1
        if self._added >= MERGE_EVERY:
            self._added = 0
            try:
                self.merge()
            except OSError as error:
                logger.warning("planned trials could not be merged, and are later: %s", error)

    def merge(self, *, is_final: bool = False) -> None:
        """Put what was added into `plan.parquet`; where it `is_final`, nothing more will be. Raises `OSError`."""
        name = self._current()
        added = {file: table for file in self._added_names() if (table := self._addition(file)) is not None}
        plan = self.table(name)
        most = None if is_final else (plan.schema.metadata or {}).get(_MOST)
        changed = is_final and _MOST in (plan.schema.metadata or {})
        if added or changed:
            self._folder.write(PLAN, parquet_bytes(_owned(plan, name, most and int(most))), durable=True)
        for file in added:
            self._folder.folder(_PLANNED).discard(file)

    def _table(self, name: str) -> pa.Table:
        # What was added is read before the plan, which takes it in before it goes.
        added = [self._addition(file) for file in self._added_names()]
        current = self._current()
        if name != current:
            plan = self._plan(self._archive(self._check(name)))
        else:
            plan = self._plan(self._folder)
            if _owner(plan) not in (None, name):  # a driver died while it put this sweep in the place of that one
                archive = self._archive(name)
                plan = self._plan(archive) if archive.exists(PLAN) else plan.slice(0, 0)
        return self._stacked([plan, *(table for table in added if table is not None and _owner(table) == name)])

    def _spec(self, name: str | None) -> str:
        current = self._current()
        if name is None or name == current:
            return self._text(self._folder)
        archive = self._archive(self._check(name))
        if (found := self._name(archive)) != name:
            raise self._odd(archive.at(SPEC), f"it is of a sweep named {found}")
        return self._text(archive)

    def _stacked(self, plans: Sequence[pa.Table]) -> pa.Table:
        try:
            return _stacked(plans)
        except pa.ArrowException as error:
            raise self._odd(PLAN, error) from error

    def _current(self) -> str:
        return self._name(self._folder)

    def _is_store(self, name: str) -> bool:
        """Whether what lies where a sweep would be kept is another store."""
        return "trials" in self._archive(name).folders()

    def _check(self, name: str) -> str:
        if name not in (known := self.names()):
            raise FaultsError(f"store {self._shown}", [unknown_name("sweep of this store", name, known)])
        return name

    def _archive(self, name: str) -> Folder:
        return self._folder.folder(_SWEEPS).folder(name)

    def _name(self, folder: Folder) -> str:
        text = self._text(folder)
        try:
            return _name_in(text)
        except ValueError as error:
            raise self._odd(folder.at(SPEC), error) from error

    def _text(self, folder: Folder) -> str:
        try:
            return folder.read(SPEC).to_pybytes().decode()
        except UnicodeDecodeError as error:
            raise self._odd(folder.at(SPEC), error) from error
        except FileNotFoundError as error:
            if folder is self._folder:
                raise self._missing(error) from error
            raise

    def _plan(self, folder: Folder) -> pa.Table:
        content = folder.read(PLAN)
        try:
            return _rows_of(content.to_pybytes())
        except Exception as error:  # whatever Arrow makes of bytes that are anybody's
            raise self._odd(folder.at(PLAN), error) from error

    def _added_names(self) -> list[str]:
        return [name for name in self._folder.folder(_PLANNED).names() if NAME.fullmatch(name)]

    def _addition(self, name: str) -> pa.Table | None:
        """The rows of a file in `planned/`; None for one that is torn or not ours, which is reported once."""
        folder = self._folder.folder(_PLANNED)
        content = folder.read(name)
        try:
            return _rows_of(content.to_pybytes())
        except Exception as error:
            if name not in self._warned:
                self._warned.add(name)
                logger.warning("%s is ignored, because it is torn or not the store's: %s", folder.at(name), error)
            return None

    def _write(self, folder: Folder, spec_json: str, plan: pa.Table, *, plan_first: bool) -> None:
        files = {PLAN: parquet_bytes(plan), SPEC: spec_json.encode()}
        for name in files if plan_first else reversed(files):
            folder.write(name, files[name], durable=True)

    def _keep(self, spec_json: str, plan: pa.Table) -> None:
        history = self._folder.folder(_HISTORY)
        numbers = [int(match[1]) for name in history.names() if (match := re.match(r"(\d{4,9})-", name))]
        number = 1 + max(numbers, default=0)
        history.write(f"{number:04d}-{SPEC}", spec_json.encode())
        history.write(f"{number:04d}-{PLAN}", parquet_bytes(plan))

    def _consistently(self, read: Callable[[], T]) -> T:
        """What is read, begun again where a file was merged away meanwhile."""
        for attempt in range(1, ATTEMPTS + 1):
            try:
                return read()
            except FileNotFoundError as error:
                if attempt == ATTEMPTS:
                    raise self._missing(error) from error
        raise AssertionError("unreachable")

    def _missing(self, error: FileNotFoundError) -> FaultsError:
        if not self.exist():
            remedy = f"name the folder or bucket that `adaptune run` named, such as sweeps/NAME; {SPEC} lies in it"
            return FaultsError(f"store {self._shown}", [f"there is no sweep stored here; {remedy}"])
        named = re.search(r"'([^']+)'", str(error))  # in whatever the file system says of it
        what = named[1] if named else next(iter(str(error).splitlines()), "a file")
        return FaultsError(f"store {self._shown}", [f"{what} must be there, as adaptune wrote it, but is missing"])

    def _odd(self, place: str, error: object) -> FaultsError:
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        return FaultsError(f"store {self._shown}", [f"{place} must be as adaptune wrote it, but {reason}"])


def _name_in(spec_json: str) -> str:
    """The name of the sweep that a spec describes. Raises `ValueError` where it has none that can be one."""
    try:
        values = json.loads(spec_json)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    name = values.get("name") if isinstance(values, dict) else None
    if not isinstance(name, str) or not SWEEP_NAME.fullmatch(name):
        raise ValueError(f"it must be a mapping with the name of a sweep, but its name is {name!r}")
    return name


def _owner(plan: pa.Table) -> str | None:
    """The sweep that a plan belongs to; None for one of old that does not say."""
    if owner := (plan.schema.metadata or {}).get(_OWNER):
        return owner.decode(errors="replace")
    return plan["sweep"][0].as_py() if "sweep" in plan.column_names and plan.num_rows else None


def _owned(plan: pa.Table, sweep: str, most_trials: int | None) -> pa.Table:
    most = {} if most_trials is None else {_MOST: str(most_trials).encode()}
    return plan.replace_schema_metadata({_OWNER: sweep.encode(), **most})


@functools.lru_cache(maxsize=4)
def _rows_of(content: bytes) -> pa.Table:
    """The rows in a file of a plan. Kept for a while: one command asks ten times what the same file holds."""
    return _conform(pq.ParquetFile(pa.BufferReader(content)).read())


def _conform(plan: pa.Table) -> pa.Table:
    """A plan with what is asked of it as text. Raises `ValueError` or `ArrowException` where it cannot be one."""
    if missing := [name for name in _TEXTS if plan.column_names.count(name) != 1]:
        raise ValueError(f"it must have one column {', '.join(missing)}")
    if nested := [field.name for field in plan.schema if pa.types.is_nested(field.type)]:
        raise ValueError(f"no column of it holds lists or the like, but {', '.join(nested)} does")
    plan.validate(full=True)
    for name in _TEXTS:
        column = plan[name].cast(pa.string())
        if column.null_count:
            raise ValueError(f"{name} is unknown in some of its rows")
        plan = plan.set_column(plan.column_names.index(name), name, column)
    if "outcome_version" in plan.column_names:
        place = plan.column_names.index("outcome_version")
        plan = plan.set_column(place, "outcome_version", plan["outcome_version"].cast(pa.int64()))
    return plan


def _stacked(plans: Sequence[pa.Table]) -> pa.Table:
    """Plans under each other, each trial once, with the first one's metadata; where kinds of values meet, text."""
    kinds: dict[str, set[pa.DataType]] = {}
    for field in (field for plan in plans for field in plan.schema):
        if not pa.types.is_null(field.type):
            kinds.setdefault(field.name, set()).add(field.type)
    mixed = {name for name, types in kinds.items() if len(types) > 1 and types != {pa.int64(), pa.float64()}}
    alike = []
    for plan in plans:
        for name in mixed.intersection(plan.column_names):
            plan = plan.set_column(plan.column_names.index(name), name, plan[name].cast(pa.string()))
        alike.append(plan)
    whole = latest(pa.concat_tables(alike, promote_options="permissive"))
    return whole.replace_schema_metadata(plans[0].schema.metadata)
