"""Which files of a folder hold the rows of which split, by their names.

`train`, `validation` and `test` are what they are called here; the names they have elsewhere (`dev`, `val`, capitals,
the numbered parts of the Hugging Face hub, compressed files) are taken for a split that has no file of its own name.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from trainables.data import spreadsheet
from trainables.data.splitting import WHOLE
from trainables.task import FURTHER_SPLIT, SPLITS, in_order

ENDINGS = (".parquet", ".csv", ".tsv", ".jsonl")  # of a split's own files
# Endings of files that a split without one of those may have; the later ones only where no earlier is there.
_FURTHER_ENDINGS = (*ENDINGS, ".ndjson", ".json"), (".txt",), spreadsheet.ENDINGS
_PACKED = (".gz", ".zip")
CALLED = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("validation", "valid", "val", "dev", "development", "eval"), "validation"),
    **dict.fromkeys(("test", "testing"), "test"),
    WHOLE: WHOLE,
}
_PART = re.compile(r"(?P<stem>.+?)-(?P<part>\d{5})-of-(?P<parts>\d{5})")
_ARROW_SET = "dataset_dict.json"  # what `datasets` leaves in a folder of splits
DECLARATION = "task.json"


@dataclass(frozen=True, kw_only=True)
class Layout:
    """The files of each split, relative to the folder, in order; and what is to be said about the choice."""

    files: Mapping[str, Sequence[str]]
    notes: Sequence[str] = ()
    faults: Sequence[str] = ()
    others: Sequence[str] = ()  # files of rows, by their names, that are of no split


def files_below(folder: Path) -> list[Path]:
    """The files that can hold rows: those of the folder, of its `data`, and of the folders `datasets` saves to."""
    files = [path for path in sorted(folder.iterdir()) if path.is_file()]
    if (folder / "data").is_dir():
        files += [path for path in sorted((folder / "data").iterdir()) if path.is_file()]
    if (folder / _ARROW_SET).is_file():
        files += sorted(path for path in folder.glob("*/data-*.arrow") if path.is_file())
    return files


def split_files(names: Sequence[str]) -> dict[str, list[str]]:
    """The files that hold rows under a split's own name, by split, in the order of `in_order`: one a split if all is
    well."""
    found: dict[str, list[str]] = {}
    for ending in ENDINGS:
        for split in (name.removesuffix(ending) for name in names if name.endswith(ending)):
            if split in (*SPLITS, WHOLE) or FURTHER_SPLIT.fullmatch(split):
                found.setdefault(split, []).append(f"{split}{ending}")
    return {split: found[split] for split in in_order(found)}


def find_layout(names: Sequence[str]) -> Layout:
    """The splits of a folder that holds files of these names (`data/x.csv` for those of its `data`)."""
    own = split_files(names)
    chosen: dict[str, Sequence[str]] = {}
    notes, faults = [], []
    found = _further(names)
    if not own and "train" not in found:
        found = _further(names, at_end=True)
    if WHOLE in own:
        found = {}
    elif own or len(found) > 1:
        found.pop(WHOLE, None)  # "All.csv" beside splits
    for split in in_order(own.keys() | found.keys()):
        candidates = [[name] for name in own[split]] if split in own else found[split]
        if len(candidates) > 1:
            faults.append(f"{split}: one file may hold a split, but there are {', '.join(c[0] for c in candidates)}")
            chosen[split] = ()
            continue
        chosen[split] = candidates[0]
        if split not in own:
            named = candidates[0][0] + (f" and {len(candidates[0]) - 1} more" if len(candidates[0]) > 1 else "")
            notes.append(f"{split} is {named}")
            if fault := _missing_parts(split, candidates[0]):
                faults.append(fault)
    others = [name for name in names if _is_rows(name) and not any(name in files for files in chosen.values())]
    rivals = {name for files in (*found.values(),) for group in files for name in group}
    unknown = [name for name in others if name not in rivals and not any(name in files for files in own.values())]
    if not chosen and len(unknown) == 1:
        return Layout(files={WHOLE: unknown}, notes=[f"all rows are {unknown[0]}"])
    if others and chosen:
        notes.append(f"not read, since no split is made of them: {', '.join(others[:10])}")
    return Layout(files=chosen, notes=notes, faults=faults, others=unknown)


def ending_of(name: str) -> str:
    """The ending that says a file's format, packed or not, in small letters."""
    path = Path(name.lower())
    return path.with_suffix("").suffix if path.suffix in _PACKED else path.suffix


def _further(names: Sequence[str], *, at_end: bool = False) -> dict[str, list[list[str]]]:
    """split -> the files, or parts of one, that have a name which is as good as its own; best endings only.

    With `at_end` it is enough that a name ends so, as `reviews_train.csv` does.
    """
    found: dict[str, list[dict[str, list[str]]]] = {}
    for rank, endings in enumerate(_FURTHER_ENDINGS):
        for name in names:
            ending = ending_of(name)
            if name == DECLARATION or (ending not in endings and not (rank == 0 and ending == ".arrow")):
                continue
            split, group = _split_of(name, ending, at_end=at_end)
            if split is not None:
                found.setdefault(split, [{} for _ in _FURTHER_ENDINGS])[rank].setdefault(group, []).append(name)
    return {
        split: [sorted(files) for files in next(groups for groups in ranks if groups).values()]
        for split, ranks in found.items()
    }


def _split_of(name: str, ending: str, *, at_end: bool) -> tuple[str | None, str]:
    """The split a file is of, if any, and what its parts have in common."""
    path = Path(name)
    if ending == ".arrow":
        return CALLED.get(path.parts[0].lower()), str(path.parent)
    base = path.name[: path.name.lower().rindex(ending)]
    part = _PART.fullmatch(base)
    stem = (part["stem"] if part else base).lower()
    group = f"{path.parent}/{stem}-{part['parts']}{ending}" if part else name
    if at_end:
        stem = re.split(r"[_. -]", stem)[-1]
    if stem in CALLED:
        return CALLED[stem], group
    first, _, rest = stem.partition("_")
    if rest and CALLED.get(first) in ("validation", "test") and re.fullmatch(r"\w+", rest):
        return f"{CALLED[first]}_{rest}", group
    return None, group


def _missing_parts(split: str, files: Sequence[str]) -> str | None:
    parts = [_PART.search(Path(name).name) for name in files]
    if parts[0] is None:
        return None
    total, there = int(parts[0]["parts"]), {int(part["part"]) for part in parts if part}
    absent = [str(number) for number in range(total) if number not in there]
    return f"{split}: must have all its {total} parts, but lacks part {', '.join(absent[:5])}" if absent else None


def _is_rows(name: str) -> bool:
    return ending_of(name) in (*ENDINGS, ".ndjson", *spreadsheet.ENDINGS) and not Path(name).name.startswith(".")
