"""Task folders on disk: split files and an optional task.json, read into a checked Task."""

from __future__ import annotations

import difflib
import functools
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet

from trainables.data import squad
from trainables.data.paths import existing_path
from trainables.data.rows import Declared, make_task
from trainables.data.splitting import WHOLE
from trainables.faults import FaultsError
from trainables.task import FURTHER_SPLIT, SPLITS, Task, in_order

COLUMNS = ("text_a", "text_b", "label")  # all others are ignored

# key of task.json -> (its rule, does a value keep it)
_KEYS: dict[str, tuple[str, Any]] = {
    "name": ("a non-empty string", lambda v: isinstance(v, str) and bool(v)),
    "kind": ("a string", lambda v: isinstance(v, str)),
    "pair": ("true or false", lambda v: isinstance(v, bool)),
    "num_labels": ("a whole number", lambda v: isinstance(v, int) and not isinstance(v, bool)),
    "label_names": ("a list of strings", lambda v: isinstance(v, list) and all(isinstance(n, str) for n in v)),
    "metric": ("a string", lambda v: isinstance(v, str)),
}


def load_folder(folder: Path, *, name: str | None = None) -> Task:
    """Read a task folder; `name` replaces the one its task.json gives. Read once per process until a file changes.

    Raises `FaultsError` with everything that is wrong with the folder, its files and their rows.
    """
    found = existing_path(str(folder))
    if found is None or not found.is_dir():
        raise FaultsError(f"task {name or folder.name}", [f"no such folder: {folder}"])
    folder = found.resolve()
    try:
        stamp = tuple(
            (path.name, status.st_size, status.st_mtime_ns)
            for path in sorted(folder.iterdir())
            if path.is_file() and (status := path.stat())
        )
    except OSError as fault:
        raise FaultsError(f"task {name or folder.name}", [f"the folder must be readable, but {fault}"]) from None
    return _load(folder, name, stamp)


@functools.lru_cache(maxsize=64)
def _load(folder: Path, name: str | None, stamp: tuple[Any, ...]) -> Task:
    """`stamp` is what the folder held; a changed file is another call."""
    declared, faults = _read_declaration(folder, name)
    names = [entry[0] for entry in stamp]
    files = split_files(names)
    if declared.kind == "extractive_qa" or (declared.kind is None and not files and squad.split_files(names)):
        return squad.load_squad(folder, names, declared, faults)
    tables = {}
    for split, candidates in files.items():
        if len(candidates) > 1:
            faults.append(f"{split}: one file may hold a split, but there are {', '.join(candidates)}")
            continue
        try:
            tables[split] = _with_columns_once(READERS[Path(candidates[0]).suffix](folder / candidates[0]))
        except (pa.ArrowException, OSError, ValueError, RecursionError) as fault:
            faults.append(f"{split}: {candidates[0]} cannot be read: {' '.join(str(fault).split())}")
    if WHOLE in files and (others := [split for split in files if split != WHOLE]):
        faults.append(f"{WHOLE}: must be the only file with rows, or not be there, but there is {', '.join(others)}")
    for split in ("train", "validation") if WHOLE not in files else ():
        if split not in files:
            held = ", ".join(names[:10]) or "nothing"
            faults.append(f"{split}: needs a file {split}{{{','.join(READERS)}}}, but {folder} holds {held}")
    return make_task(declared, tables, faults)


def split_files(names: Sequence[str]) -> dict[str, list[str]]:
    """The files of a task folder that hold rows, by split, in the order of `in_order`: one a split if all is well."""
    found: dict[str, list[str]] = {}
    for ending in READERS:
        for split in (name.removesuffix(ending) for name in names if name.endswith(ending)):
            if split in (*SPLITS, WHOLE) or FURTHER_SPLIT.fullmatch(split):
                found.setdefault(split, []).append(f"{split}{ending}")
    return {split: found[split] for split in in_order(found)}


def _read_declaration(folder: Path, name: str | None) -> tuple[Declared, list[str]]:
    """What task.json says, where there is one, and its faults; a faulty value counts as not said."""
    path, values, faults = folder / "task.json", {}, []
    if path.exists():
        try:
            values = json.loads(path.read_text(encoding="utf-8-sig"))
        except (OSError, ValueError, RecursionError) as fault:
            faults.append(f"task.json cannot be read: {fault}")
        if not isinstance(values, dict):
            faults.append(f"task.json: must be an object, but is {type(values).__name__}")
            values = {}
    for key in values.keys() - _KEYS.keys():
        # Further keys (rows, license, notes) are welcome, but one that is nearly a known key is a slip of the pen.
        if near := difflib.get_close_matches(key, _KEYS, n=1, cutoff=0.7):
            faults.append(f"task.json: unknown key {key!r}; did you mean {near[0]!r}? Known: {', '.join(_KEYS)}")
    good: dict[str, Any] = {}
    for key, (rule, keeps) in _KEYS.items():
        if values.get(key) is None:
            continue
        if keeps(values[key]):
            good[key] = tuple(values[key]) if key == "label_names" else values[key]
        else:
            faults.append(f"task.json: {key} must be {rule}, but got {values[key]!r}")
    good["name"] = name or good.get("name") or folder.name
    return Declared(**good, source=str(folder)), sorted(faults)


def _with_columns_once(table: pa.Table) -> pa.Table:
    """The same table. Raises `ValueError` where a column that counts stands twice, or a name is no UTF-8."""
    names = table.column_names
    if twice := [name for name in COLUMNS if names.count(name) > 1]:
        raise ValueError(f"every column must stand once, but {', '.join(twice)} stands twice")
    return table


def _read_parquet(path: Path) -> pa.Table:
    # Not read_table: it would take a folder called "a=b" on the way for a column.
    with pa.parquet.ParquetFile(path) as file:
        return file.read(columns=[name for name in file.schema_arrow.names if name in COLUMNS])


def _read_csv(path: Path) -> pa.Table:
    """Comma-separated with a header, quoted as RFC 4180 says: quotes doubled inside quotes, line breaks allowed."""
    return _read_delimited(path, pa.csv.ParseOptions(delimiter=",", newlines_in_values=True))


def _read_tsv(path: Path) -> pa.Table:
    """Tab-separated with a header and no quoting: a quotation mark is a character like any other, as in GLUE."""
    return _read_delimited(path, pa.csv.ParseOptions(delimiter="\t", quote_char=False, double_quote=False))


def _read_delimited(path: Path, options: pa.csv.ParseOptions) -> pa.Table:
    # Everything is read as text: "NA" or "1e5" in a sentence is a word. Labels are parsed later.
    columns = dict.fromkeys(COLUMNS, pa.string())
    return pa.csv.read_csv(
        path,
        parse_options=options,
        # One block: a quoted line break must never fall between two.
        read_options=pa.csv.ReadOptions(block_size=max(1 << 20, path.stat().st_size + 1)),
        convert_options=pa.csv.ConvertOptions(column_types=columns, strings_can_be_null=False),
    )


def _read_jsonl(path: Path) -> pa.Table:
    """One JSON object a line; a key that is absent is a null."""
    columns: dict[str, list[Any]] = {}
    rows = 0
    with path.open(encoding="utf-8-sig") as lines:
        for number, line in enumerate(lines, start=1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except ValueError as fault:
                raise ValueError(f"line {number} is not JSON: {fault}") from None
            if not isinstance(row, dict):
                raise ValueError(f"line {number}: must be an object, but is {type(row).__name__}")
            for key in COLUMNS:
                if key in row and key not in columns:
                    columns[key] = [None] * rows
                if key in columns:
                    columns[key].append(row.get(key))
            rows += 1
    try:
        return pa.table(columns)
    except (pa.ArrowInvalid, pa.ArrowTypeError, OverflowError) as fault:
        raise ValueError(f"a column must have one type, but {fault}") from None


READERS: Mapping[str, Any] = {
    ".parquet": _read_parquet,
    ".csv": _read_csv,
    ".tsv": _read_tsv,
    ".jsonl": _read_jsonl,
}
