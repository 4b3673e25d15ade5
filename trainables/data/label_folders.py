"""Texts that lie one a file in folders that are called as their labels, as IMDB's do: `train/pos/0_9.txt`."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath

import pyarrow as pa

from trainables.data.encoding import read_lines
from trainables.data.layout import CALLED
from trainables.data.reading import SKIP, Format, Rows
from trainables.data.splitting import WHOLE
from trainables.task import in_order

_UNLABELLED = ("unsup", "unlabeled", "unlabelled")
_SHOWN = 5

Labels = Mapping[str, Sequence[str]]  # label -> files


def text_files(folder: Path) -> list[Path]:
    """The texts below a folder that lie two or three folders deep: `pos/1.txt`, `train/pos/1.txt`."""
    found: list[Path] = []
    for first in sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith(".")):
        inner = [path for path in sorted(first.iterdir()) if not path.name.startswith(".")]
        found += [path for path in inner if _is_text(path)]
        if _split_of(first.name) is not None:
            found += [
                path for second in inner if second.is_dir() for path in sorted(second.iterdir()) if _is_text(path)
            ]
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


def read_label_folders(folder: Path, labels: Labels, asked: Format) -> Rows:
    """The texts of a split, label after label, files in the order of their names."""
    texts, values, faults, empty, broken = [], [], [], [], []
    for label, files in labels.items():
        for file in files:
            try:
                lines, _ = read_lines(folder / file, asked.encoding)
            except ValueError as fault:
                broken.append(file)
                faults.append(f"{file} {fault}")
                continue
            text = "".join(lines).strip()
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


def _listed(files: Sequence[str]) -> str:
    return ", ".join(files[:_SHOWN]) + (f" and {len(files) - _SHOWN} more" if len(files) > _SHOWN else "")


def _split_of(folder: str) -> str | None:
    name = folder.lower()
    return CALLED.get(name) or CALLED.get(re.split(r"[_. -]", name)[-1])


def _is_text(path: Path) -> bool:
    """Whether a file holds a text, by its name: `.txt`, or no ending at all, as in 20 Newsgroups."""
    return path.suffix.lower() in (".txt", "") and not path.name.startswith(".") and path.is_file()
