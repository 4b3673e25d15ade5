"""Data sets as their authors publish them, before anybody made a task folder of them.

A source says what its file is called and where in it texts and labels are. Rows without a text or a label that counts
are left out; nothing else is cleaned, so that repeated rows stay, as they do in published numbers of rows. Files that
are not UTF-8 are read as cp1252, which is what most of them are, and as latin-1 where even that fails.
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv

from trainables.data.rows import Declared, make_task
from trainables.data.splitting import WHOLE
from trainables.faults import FaultsError
from trainables.task import Task

_ENCODINGS = ("utf-8-sig", "cp1252", "latin-1")
_MAX_BLOCK = 2**31 - 1  # bytes; pyarrow's limit
_COLUMNS = ("text_a", "label")


@dataclass(frozen=True, kw_only=True, eq=False)
class Published:
    """One way in which a data set is published."""

    name: str  # what its file or folders are called: a shell pattern
    read: Callable[[Path], pa.Table]  # -> columns text_a and label, both strings
    labels: Mapping[str, str] | None = None  # the labels that count and what they become; None takes all as they are


def comma_separated(name: str, *, text: str, label: str, labels: Mapping[str, str] | None = None) -> Published:
    """A file with a header, quoted where needed."""
    options = pa.csv.ParseOptions(delimiter=",", newlines_in_values=True)
    return Published(name=name, read=lambda path: _read_delimited(path, options, None, text, label), labels=labels)


def tab_separated(
    name: str, columns: Sequence[str], *, text: str, label: str, labels: Mapping[str, str] | None = None
) -> Published:
    """A file without header and without quoting."""
    options = pa.csv.ParseOptions(delimiter="\t", quote_char=False, double_quote=False)
    return Published(name=name, read=lambda path: _read_delimited(path, options, columns, text, label), labels=labels)


def folder_per_label(name: str) -> Published:
    """Folders that hold a folder a label, which hold a file a text."""
    return Published(name=name, read=_read_tree)


def find(folder: Path, sources: Sequence[Published]) -> tuple[Published, tuple[Path, ...]] | None:
    """The first of some sources that a folder holds, with its files; None where it holds none."""
    for source in sources:
        if paths := tuple(sorted(folder.glob(source.name))):
            return source, paths
    return None


def stamp(paths: Sequence[Path]) -> tuple[tuple[str, int, int], ...]:
    """What changes when a source does: sizes and times of its files, or of the folders that hold them."""
    files = [file for path in paths for file in (sorted(path.iterdir()) if path.is_dir() else [path])]
    return tuple((str(file), file.stat().st_size, file.stat().st_mtime_ns) for file in files)


def load_published(source: Published, paths: Sequence[Path], *, name: str, expected_rows: int | None = None) -> Task:
    """Read a classification as published, and cut it into splits.

    Where it has another number of rows than expected, the task's source says so. Raises `FaultsError`.
    """
    try:
        table = pa.concat_tables([source.read(path) for path in paths])
    except (pa.ArrowException, OSError, ValueError) as fault:
        called = ", ".join(path.name for path in paths)
        raise FaultsError(f"task {name}", [f"{called} cannot be read: {' '.join(str(fault).split())}"]) from None
    labels = pc.utf8_trim_whitespace(table["label"])
    if source.labels is not None:
        known = pc.index_in(labels, pa.array(source.labels.keys(), pa.string()))
        labels = pc.take(pa.array(source.labels.values(), pa.string()), known)
    is_used = pc.and_(pc.not_equal(pc.utf8_trim_whitespace(table["text_a"]), ""), pc.not_equal(labels, ""))
    used = table.set_column(1, "label", labels).filter(is_used)  # a label that does not count is null, and left out
    facts = [f"{used.num_rows} rows"]
    if used.num_rows < table.num_rows:
        facts.append(f"{table.num_rows - used.num_rows} without text or usable label left out")
    if expected_rows not in (None, used.num_rows):
        facts.append(f"{expected_rows} expected")
    declared = Declared(
        name=name,
        source=f"{', '.join(map(str, paths))} ({', '.join(facts)})",
        kind="classification",
        pair=False,
        # Of all rows: a rare label may have none in train.
        label_names=tuple(sorted(pc.unique(used["label"]).to_pylist())) or None,
        metric="accuracy",
    )
    return make_task(declared, {WHOLE: used})


def _read_delimited(
    path: Path, options: pa.csv.ParseOptions, columns: Sequence[str] | None, text: str, label: str
) -> pa.Table:
    content = _utf8(path)
    if columns is None:
        header = next(csv.reader(content[: 1 << 16].decode(errors="ignore").splitlines()), [])
        if absent := [column for column in (text, label) if column not in header]:
            raise ValueError(f"it needs columns {', '.join(absent)}, but has {', '.join(header) or 'none'}")
    table = pa.csv.read_csv(
        pa.BufferReader(content),
        parse_options=options,
        read_options=pa.csv.ReadOptions(block_size=min(len(content) + 1, _MAX_BLOCK), column_names=columns),
        convert_options=pa.csv.ConvertOptions(
            include_columns=[text, label],
            column_types=dict.fromkeys((text, label), pa.string()),
            strings_can_be_null=False,
        ),
    )
    return table.rename_columns(_COLUMNS)


def _read_tree(path: Path) -> pa.Table:
    files = [(group, file) for group in sorted(path.iterdir()) if group.is_dir() for file in sorted(group.iterdir())]
    if not files:
        raise ValueError("it must hold a folder a label with a file a text, but holds none")
    texts = [_utf8(file).decode() for _, file in files]
    return pa.table([pa.array(texts, pa.string()), pa.array([group.name for group, _ in files])], names=_COLUMNS)


def _utf8(path: Path) -> bytes:
    """A file's content in UTF-8, whatever it was in."""
    content = path.read_bytes()
    for encoding in _ENCODINGS:
        try:
            return content.decode(encoding).encode()
        except UnicodeDecodeError:
            continue
    raise AssertionError("latin-1 decodes anything")
