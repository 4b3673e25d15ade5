"""Task folders on disk: split files and an optional task.json, read into a checked Task."""

from __future__ import annotations

import dataclasses
import functools
import json
import logging
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.ipc
import pyarrow.parquet

from trainables.data import spreadsheet, squad
from trainables.data.columns import find_columns, suggestion
from trainables.data.declaration import read_declaration
from trainables.data.delimited import read_delimited
from trainables.data.encoding import LFS_POINTER, packed_ending, read_lines
from trainables.data.fasttext import PREFIX, read_fasttext
from trainables.data.json_rows import read_json, whole_rows
from trainables.data.label_folders import (
    Labels,
    find_label_folders,
    not_read,
    read_label_folders,
    remedy_of_nested,
    text_files,
)
from trainables.data.label_sets import from_flags
from trainables.data.layout import (
    CALLED,
    ENDINGS,
    Layout,
    ending_of,
    files_below,
    find_layout,
    misplaced,
    remedy,
    split_files,
)
from trainables.data.paths import existing_path
from trainables.data.reading import LINE, Format, Rows
from trainables.data.rows import Declared, make_task
from trainables.data.splitting import WHOLE
from trainables.faults import FaultsError
from trainables.task import SPLITS, Reading, Task, in_order

logger = logging.getLogger(__name__)

_LOOKED_AT = 200  # rows that tell which column is which


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
            (path.relative_to(folder).as_posix(), status.st_size, status.st_mtime_ns)
            for path in _row_files(folder)
            if (status := path.stat())
        )
    except OSError as fault:
        raise FaultsError(f"task {name or folder.name}", [f"the folder must be readable, but {fault}"]) from None
    return _load(folder, name, stamp)


def _row_files(folder: Path) -> list[Path]:
    """The files of rows, or where there is none the texts that lie one a file."""
    files = files_below(folder)
    layout = find_layout([path.relative_to(folder).as_posix() for path in files])
    return files if layout.files or layout.others else [*files, *text_files(folder)]


@functools.lru_cache(maxsize=64)
def _load(folder: Path, name: str | None, stamp: tuple[Any, ...]) -> Task:
    """`stamp` is what the folder held; a changed file is another call."""
    declared, asked, faults = read_declaration(folder, name)
    names = [entry[0] for entry in stamp]
    if _is_squad(folder, names, declared, asked):
        return squad.load_squad(folder, names, declared, faults)
    layout, labelled = _with_sheets(folder, find_layout(names)), dict[str, Labels]()
    if not layout.files and not layout.others:
        labelled, said_of_folders = find_label_folders(names)
        folders = {
            split: [str(Path(files[0]).parent) for files in labels.values()] for split, labels in labelled.items()
        }
        said_of_folders += not_read(folder, labelled)
        layout = Layout(files=folders, notes=said_of_folders, faults=layout.faults)
    if declared.kind in (None, "extractive_qa") and _are_questions(folder, layout.files):
        return squad.load_squad(folder, names, declared, [*faults, *layout.faults], files=layout.files)
    faults += [*layout.faults, *misplaced(folder)]
    notes, held, tables = list(layout.notes), {}, {}
    hints: list[str] = []
    readings: list[Reading] = []
    said: dict[str, list[str]] = {}  # a note -> the splits it is about
    class_names: Sequence[str] = ()
    incomplete: set[str] = set()
    for split, files in layout.files.items():
        if not files:
            continue
        called = files[0] if len(files) == 1 else f"{files[0]} and {len(files) - 1} more"
        try:
            rows = (
                read_label_folders(folder, labelled[split], asked)
                if split in labelled
                else _read(folder, files, asked, layout.sheets.get(split))
            )
        except (pa.ArrowException, OSError, ValueError, RecursionError, EOFError, zlib.error) as fault:
            faults.append(f"{split}: {called} cannot be read: {' '.join(str(fault).split())}")
            continue
        faults += [f"{split}: {called} cannot be read: {fault}" for fault in rows.faults]
        if rows.skipped:
            logger.warning("task %s: %s: %s", declared.name, split, rows.notes[-1])
        if rows.faults:
            incomplete.add(split)
        for note in rows.notes:
            said.setdefault(note, []).append(split)
        tables[split], held[split] = rows.table, rows.names
        readings.append(_reading(split, files, rows))
        if rows.hint and not (split.startswith("test") and "text_a" in rows.table.column_names):
            hints.append(rows.hint)
        class_names = class_names or rows.class_names
    if WHOLE in layout.files and (others := [split for split in layout.files if split != WHOLE]):
        faults.append(f"{WHOLE}: must be the only file with rows, or not be there, but there is {', '.join(others)}")
    cut_validation = (
        "train" in tables and "validation" not in layout.files and not layout.others and WHOLE not in tables
    )
    for split in ("train", "validation") if WHOLE not in layout.files else ():
        if split not in layout.files and not (split == "validation" and cut_validation):
            listed = ", ".join(names[:10]) or "nothing"
            whole = ", or one file of rows alone to be cut into splits" if split == "train" and not layout.files else ""
            faults.append(
                f"{split}: needs a file {split}{{{','.join(ENDINGS)}}}{whole}, but {folder} holds {listed}"
                + ("" if layout.files else remedy(folder, names) or remedy_of_nested(folder))
            )
    flagged = (asked.columns or {}).get("label")
    if not isinstance(flagged, list):
        flagged = None if declared.kind in (None, "multilabel") else []
    tables, flags = from_flags(tables, flagged, faults, notes)
    if flags:
        hints = []
        readings = [_with_flags(reading, flags) for reading in readings]
        declared = dataclasses.replace(
            declared, kind=declared.kind or "multilabel", label_names=declared.label_names or flags
        )
    if hints:
        faults.append(f"columns: {hints[0]}")
    notes += [f"{', '.join(splits)}: {note}" for note, splits in said.items()]
    declared = _with_class_names(declared, class_names, tables)
    task = make_task(
        declared, tables, faults, notes=notes, names=held, cut_validation=cut_validation, incomplete=incomplete
    )
    for note in task.notes:
        logger.info("%s: %s", task.info.name, note)
    return dataclasses.replace(task, readings=tuple(readings))


def _reading(split: str, files: Sequence[str], rows: Rows) -> Reading:
    return Reading(
        split=split,
        files=tuple(files),
        columns=tuple(rows.names),
        rows=rows.table.num_rows,
        skipped=rows.skipped,
        format=rows.format,
    )


def _with_flags(reading: Reading, flags: Sequence[str]) -> Reading:
    """A reading that says which of its columns are a label each, where it has them."""
    if not set(flags) <= set(reading.columns):
        return reading
    columns = {**reading.format.get("columns", {}), "label": list(flags)}
    return dataclasses.replace(reading, format={**reading.format, "columns": columns})


def _are_questions(folder: Path, files: Mapping[str, Sequence[str]]) -> bool:
    """Whether the rows of train are questions of SQuAD, one a row, as the Hugging Face hub has them."""
    first = next(iter(files.get("train", ())), None)
    try:
        return first is not None and squad.is_flat(folder / first)
    except (pa.ArrowException, OSError, ValueError, RecursionError):
        return False  # and a fault for whoever reads it


def _is_squad(folder: Path, names: Sequence[str], declared: Declared, asked: Format) -> bool:
    """Whether a folder is one of questions and answers: said so, or its only rows are objects as SQuAD has them."""
    if split_files(names) or declared.kind not in (None, "extractive_qa"):
        return declared.kind == "extractive_qa" and not _are_questions(folder, find_layout(names).files)
    files = squad.split_files(names)
    return any(not _holds_rows(folder / candidates[0], asked) for candidates in files.values())


def _holds_rows(path: Path, asked: Format) -> bool:
    """Whether a .json file holds rows, as a list or a line each or otherwise, and no articles."""
    try:
        lines, _ = read_lines(path)
        first = next((line for line in lines if line.strip()), "").strip()
        if first.startswith("["):
            return True
        try:
            rows = whole_rows(lines, asked)
        except ValueError:  # a fault for whoever reads the rows
            return True
        row = json.loads(first) if rows is None else next(iter(rows), None)
        return isinstance(row, dict) and "data" not in row and "paragraphs" not in row
    except (OSError, ValueError, RecursionError):
        return False


def _with_sheets(folder: Path, layout: Layout) -> Layout:
    """A layout in which the sheets of the one file there is are splits, where they are called so."""
    file = next(iter(layout.files.get(WHOLE, ())), "")
    if len(layout.files) != 1 or ending_of(file) not in spreadsheet.ENDINGS:
        return layout
    called = {sheet: CALLED.get(sheet.strip().lower()) for sheet in spreadsheet.sheet_names(folder / file)}
    splits = {split: sheet for sheet, split in called.items() if split in SPLITS}
    if "train" not in splits or len(splits) < 2:
        return layout
    if len(splits) < len([split for split in called.values() if split in SPLITS]):
        rivals = ", ".join(repr(sheet) for sheet, split in called.items() if split in SPLITS)
        fault = f"{file}: one sheet may hold a split, but there are {rivals}"
        return dataclasses.replace(layout, faults=[*layout.faults, fault])
    others = [repr(sheet) for sheet in called if sheet not in splits.values()]
    notes = [f"{split} is the sheet {sheet!r} of {file}" for split, sheet in splits.items()]
    return dataclasses.replace(
        layout,
        files={split: [file] for split in in_order(splits)},
        sheets=splits,
        notes=[*notes, f"not read of its sheets: {', '.join(others)}"] if others else notes,
    )


def _read(folder: Path, files: Sequence[str], asked: Format, sheet: str | None = None) -> Rows:
    """The rows of a split's file, or of its parts one after the other."""
    parts = [_read_file(folder / file, asked, sheet) for file in files]
    if len(parts) == 1:
        return parts[0]
    # Lines count within a part, so rows of several have only their number.
    tables = [part.table.select([name for name in part.table.column_names if name != LINE]) for part in parts]
    names = [set(table.column_names) for table in tables]
    differ = [file for file, held in zip(files, names, strict=True) if held != names[0]]
    try:
        table = pa.concat_tables(map(_plain, tables), promote_options="permissive")
    except pa.ArrowException as fault:
        differ = differ or [f"some do: {' '.join(str(fault).split())}"]
    if differ:
        raise ValueError(f"all parts must have the columns and types of the first, but {', '.join(differ[:5])} differ")
    return Rows(
        table=table,
        names=parts[0].names,
        class_names=parts[0].class_names,
        faults=[f"{file}: {fault}" for file, part in zip(files, parts, strict=True) for fault in part.faults],
        notes=list(dict.fromkeys(note for part in parts for note in part.notes)),
        skipped=sum(part.skipped for part in parts),
        format=parts[0].format,
        hint=parts[0].hint,
    )


def _plain(table: pa.Table) -> pa.Table:
    """A table without dictionaries, whose values several tables may number differently."""
    fields = [pa.field(f.name, f.type.value_type) if pa.types.is_dictionary(f.type) else f for f in table.schema]
    return table.cast(pa.schema(fields))


def _read_file(path: Path, asked: Format, sheet: str | None = None) -> Rows:
    ending = ending_of(path.name) or packed_ending(path)
    if ending in (".parquet", ".arrow", ".feather"):
        return _read_arrow(path, asked)
    if ending in spreadsheet.ENDINGS:
        return spreadsheet.read_spreadsheet(path, asked, sheet)
    lines, encoding = read_lines(path, asked.encoding)
    first = next((line for line in lines if line.strip()), "").strip()
    if ending in (".json", ".jsonl", ".ndjson"):
        rows = read_json(lines, asked)
    elif first.startswith(PREFIX):
        rows = read_fasttext(lines, asked)
    else:
        if what := _is_no_table(first):
            raise ValueError(what)
        rows = read_delimited(lines, asked, "," if ending == ".csv" else "\t")
    notes = rows.notes
    if asked.encoding is None and encoding not in ("utf-8", "utf-8-sig"):
        notes = [f"is read as {encoding}", *notes]
    return dataclasses.replace(rows, notes=notes, format={"encoding": encoding, **rows.format})


def _is_no_table(first: str) -> str:
    """What a file is by its first line, where that can be no header; empty where it can be one."""
    if first.lower().startswith(("<!doctype html", "<html")):
        return "is a web page, as servers give in place of a file that they do not: fetch it again"
    if first[:1] in ("{", "["):
        try:
            is_json = first in ("{", "[") or isinstance(json.loads(first), dict | list)
        except (ValueError, RecursionError):
            is_json = False
        if is_json:
            return "holds JSON, so call it .jsonl, or .json where all of it is one value"
    return ""


def _read_arrow(path: Path, asked: Format) -> Rows:
    """Parquet, or the stream of Arrow that `datasets` saves; the names of classes come along as it keeps them."""
    with path.open("rb") as content:
        if content.read(len(LFS_POINTER)) == LFS_POINTER:
            raise ValueError("is a pointer of Git LFS and not the file itself: run `git lfs pull` in its repository")
    if path.suffix.lower() in (".gz", ".zip"):
        raise ValueError(f"is a packed {ending_of(path.name)} file, which is compressed as it is: unpack it")
    if ending_of(path.name) != ".parquet":
        with pa.memory_map(str(path)) as source:
            table = _read_ipc(source)
        schema = table.schema
        columns = find_columns(schema.names, asked.columns)
    else:
        # Not read_table: it would take a folder called "a=b" on the way for a column.
        with pa.parquet.ParquetFile(path) as file:
            schema = file.schema_arrow
            columns = find_columns(schema.names, asked.columns)
            table = file.read(columns=[schema.names[place] for place in columns.kept.values()])
    named = {ours: table.column(schema.names[place]) for ours, place in columns.kept.items()}
    label = schema.names[columns.places["label"]] if "label" in columns.places else None
    return Rows(
        table=pa.table(named),
        names=schema.names,
        notes=columns.notes,
        class_names=_class_names(schema, label) if label is not None else (),
        hint="" if {"text_a", "label"} <= columns.places.keys() else _hint(path, schema),
        format={"columns": {ours: schema.names[place] for ours, place in columns.places.items()}},
    )


def _hint(path: Path, schema: pa.Schema) -> str:
    """Which columns to declare, by the values of some rows of a file of Parquet; nothing of lists and structs."""
    if ending_of(path.name) != ".parquet":
        return ""
    plain = [field.name for field in schema if not pa.types.is_nested(field.type)]
    with pa.parquet.ParquetFile(path) as file:
        batch = next(file.iter_batches(batch_size=_LOOKED_AT, columns=plain), None)
    rows = [] if batch is None else batch.to_pylist()
    return suggestion(plain, [["" if row[name] is None else str(row[name]) for name in plain] for row in rows])


def _read_ipc(source: pa.NativeFile) -> pa.Table:
    """A file of Arrow's, which Feather is too, or a stream."""
    is_file = source.read(6) == b"ARROW1"
    source.seek(0)
    with (pa.ipc.open_file if is_file else pa.ipc.open_stream)(source) as reader:
        return reader.read_all()


def _class_names(schema: pa.Schema, label: str) -> tuple[str, ...]:
    """What `datasets` has written into a schema about the classes of a column."""
    try:
        features = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"]
        feature = features[label]
        feature = feature[0] if isinstance(feature, list) else feature.get("feature", feature)  # several a row
        names = feature["names"]
    except (KeyError, ValueError, TypeError, AttributeError, IndexError):
        return ()
    return tuple(names) if isinstance(names, list) and all(isinstance(name, str) for name in names) else ()


def _with_class_names(declared: Declared, names: Sequence[str], tables: Mapping[str, pa.Table]) -> Declared:
    """The declaration, with the names that the files know of their classes where it has none of its own.

    Classes at the end of the names that no row has stay away, as they do without names: the number of classes is part
    of what a trial is identified by.
    """
    if not names or declared.label_names or declared.num_labels is not None or declared.kind == "regression":
        return declared
    columns = [table["label"] for table in tables.values() if "label" in table.column_names]
    if columns and all(pa.types.is_list(c.type) and pa.types.is_integer(c.type.value_type) for c in columns):
        return dataclasses.replace(declared, label_names=tuple(names), label_keys=tuple(range(len(names))))
    if not all(pa.types.is_integer(column.type) for column in columns):
        return declared
    train = pc.unique(tables["train"]["label"]).drop_null().sort().to_pylist() if "train" in tables else []
    largest = max((pc.max(column).as_py() or 0 for column in columns), default=0)
    count = len(train) if train == list(range(len(train))) and largest < len(train) <= len(names) else len(names)
    return dataclasses.replace(declared, label_names=tuple(names[:count]), label_keys=tuple(range(count)))
