"""Texts that lie one a file in folders that are called as their labels, as IMDB's do: `train/pos/0_9.txt`."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath

import pyarrow as pa

from trainables.data.encoding import is_marked, read_lines
from trainables.data.layout import CALLED
from trainables.data.reading import SKIP, Format, Rows
from trainables.data.splitting import WHOLE
from trainables.task import in_order

_UNLABELLED = ("unsup", "unlabeled", "unlabelled")
_SHOWN = 5
_BYTES_AT_MOST = 32 << 20  # of one text: several times the longest novel
_BROKEN_AT_MOST = 1000  # files at the beginning of a split: where most are no texts, none is meant as one

Labels = Mapping[str, Sequence[str]]  # label -> files


def text_files(folder: Path) -> list[Path]:
    """The texts below a folder that lie two or three folders deep: `pos/1.txt`, `train/pos/1.txt`.

    A folder most of whose files are no texts is none of a label, whatever else it is.
    """
    found: list[Path] = []
    for first in _folders_in(folder):
        found += _texts_in(first)
        if _split_of(first.name) is not None:
            found += [path for second in _folders_in(first) for path in _texts_in(second)]
    return found


def find_label_folders(names: Sequence[str]) -> tuple[dict[str, Labels], list[str]]:
    """The files of each split by label, and what is to be said; nothing where the folders are none of labels.

    Without folders of splits, the folders are the labels of one `WHOLE`.
    """
    splits: dict[str, dict[str, list[str]]] = {}
    whole: dict[str, list[str]] = {}
    notes = []
    for name in names:
        parts = PurePosixPath(name).parts
        split = _split_of(parts[0])
        if len(parts) == 3 and split is not None:
            splits.setdefault(split, {}).setdefault(parts[1], []).append(name)
        elif len(parts) == 2 and split is None:
            whole.setdefault(parts[0], []).append(name)
    for split, labels in splits.items():
        for label in [label for label in labels if label.lower() in _UNLABELLED]:
            notes.append(f"{split}: {len(labels.pop(label)):,} texts in {label} have no label and are not read")
    found: dict[str, Labels] = {}
    if any(len(labels) > 1 for labels in splits.values()):  # of which others may have rows of one alone
        found = {split: splits[split] for split in in_order(splits) if splits[split]}
    if not found and len(whole) > 1:
        found[WHOLE] = whole
    for split, chosen in found.items():
        called = ", ".join(list(chosen)[:_SHOWN]) + (", ..." if len(chosen) > _SHOWN else "")
        notes.append(f"{split}: a text a file, the label being its folder: {called}")
    return found, notes


def remedy_of_nested(folder: Path) -> str:
    """The folder within one that has none itself where folders of texts lie, or how texts are called.

    Begins with a semicolon, or is empty.
    """
    may_be_texts = False
    for inner in _folders_in(folder):
        try:
            found, _ = find_label_folders([path.relative_to(inner).as_posix() for path in text_files(inner)])
            may_be_texts |= any(not path.suffix and path.is_file() for path in _shown_in(inner))
        except OSError:
            continue
        if found:
            return f"; {inner} has folders of texts with a label each: name that"
    rule = "texts that lie one a file, in folders called as their labels, must end in .txt or be called by numbers"
    return f"; {rule}" if may_be_texts else ""


def not_read(folder: Path, found: Mapping[str, Labels]) -> list[str]:
    """What lies in the folders of labels, or beside them, and is read as no text: a sentence each."""
    notes = []
    for split, labels in found.items():
        whole = folder / next(file for files in labels.values() for file in files)
        others = []
        for inner in _folders_in(whole.parent.parent):
            texts = {PurePosixPath(file).name for file in labels.get(inner.name, ())}
            held = [path.name for path in _shown_in(inner) if path.name not in texts]
            if texts and held:
                notes.append(f"{split}: {inner.name} holds what is no text and not read: {_listed(held)}")
            elif held and inner.name.lower() not in _UNLABELLED:
                others.append(inner.name)
        if others:
            notes.append(f"{split}: no folders of texts (.txt) with a label, and not read: {_listed(others)}")
    return notes


def read_label_folders(folder: Path, labels: Labels, asked: Format) -> Rows:
    """The texts of a split, label after label, files in the order of their names."""
    texts, values, faults, empty, broken = list[str](), list[str](), list[str](), list[str](), list[str]()
    for label, files in labels.items():
        for file in files:
            if len(broken) == _BROKEN_AT_MOST and len(texts) < len(broken):
                raise ValueError(f"{len(broken):,} of its files are no texts, and no more are read. {faults[0]}")
            try:
                text = _text(folder / file, asked.encoding)
            except (ValueError, OSError) as fault:
                broken.append(file)
                faults.append(f"{file} {fault}")
                continue
            if text:
                texts.append(text)
                values.append(label)
            else:
                empty.append(file)
    skipped = len(empty) + len(broken)
    notes = []
    if asked.skip_bad_rows:
        faults = []
        if skipped:
            notes.append(f"left out {skipped} files that are empty or cannot be read: {_listed([*empty, *broken])}")
    else:
        faults = [*faults[:_SHOWN], *([f"{len(faults) - _SHOWN} more such files"] if len(faults) > _SHOWN else [])]
        if empty:
            faults.append(
                f"every file must hold a text, but {_listed(empty)} is empty. Take out, or leave out by {SKIP}"
            )
    return Rows(
        table=pa.table({"text_a": pa.array(texts, pa.string()), "label": pa.array(values, pa.string())}),
        names=("text_a", "label"),
        faults=faults,
        notes=notes,
        skipped=skipped if asked.skip_bad_rows else 0,
        format={"encoding": asked.encoding} if asked.encoding else {},
    )


def _text(path: Path, encoding: str | None) -> str:
    """A file's text without what is blank around it. What can be no text is told from its size and its beginning."""
    size = path.stat().st_size
    if size == 0:  # nor read where a system shows its own state as files of no size
        return ""
    if size > _BYTES_AT_MOST:
        raise ValueError(f"is of {size >> 20:,} MiB, more than the {_BYTES_AT_MOST >> 20} that one text may have")
    with path.open("rb") as content:
        head = content.read(1 << 12)
    if b"\0" in head and encoding is None and not is_marked(head):
        raise ValueError("is no text: it holds zero bytes")
    lines, _ = read_lines(path, encoding)
    return "".join(lines).strip()


def _listed(files: Sequence[str]) -> str:
    return ", ".join(files[:_SHOWN]) + (f" and {len(files) - _SHOWN} more" if len(files) > _SHOWN else "")


def _split_of(folder: str) -> str | None:
    name = folder.lower()
    return CALLED.get(name) or CALLED.get(re.split(r"[_. -]", name)[-1])


def _folders_in(folder: Path) -> list[Path]:
    return [path for path in _shown_in(folder) if path.is_dir()]


def _shown_in(folder: Path) -> list[Path]:
    return [path for path in sorted(folder.iterdir()) if not path.name.startswith(".")]


def _texts_in(folder: Path) -> list[Path]:
    """The texts of a folder by their names, `.txt` or else numbers as in 20 Newsgroups; none if most are others.

    Without the numbers, `/etc` would be a task with the label `cron.daily`.
    """
    files = [path for path in _shown_in(folder) if path.is_file()]
    texts = [path for path in files if path.suffix.lower() == ".txt"]
    texts = texts or [path for path in files if path.name.isdecimal()]
    return texts if 2 * len(texts) >= len(files) else []
