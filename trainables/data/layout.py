"""Which files of a folder hold the rows of which split, by their names.

`train`, `validation` and `test` are what they are called here; the names they have elsewhere (`dev`, `val`, capitals,
the numbered parts of the Hugging Face hub, compressed files, folders of parts as Spark writes them) are taken for a
split that has no file of its own name.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from trainables.data import spreadsheet
from trainables.data.splitting import WHOLE
from trainables.task import FURTHER_SPLIT, SPLITS, in_order

ENDINGS = (".parquet", ".csv", ".tsv", ".jsonl")  # of a split's own files
# Endings of files that a split without one of those may have; the later ones only where no earlier is there.
_FURTHER_ENDINGS = (*ENDINGS, ".ndjson", ".json", ".feather", ".arrow"), (".txt",), spreadsheet.ENDINGS, (".zip",)
_PACKED = (".gz", ".zip")
_ARCHIVES = (*_PACKED, ".bz2", ".xz", ".zst", ".tar", ".tgz", ".7z", ".rar")
CALLED = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("validation", "valid", "val", "dev", "development", "eval"), "validation"),
    **dict.fromkeys(("test", "testing"), "test"),
    WHOLE: WHOLE,
}
# Parts of the hub's: since 2022 some have a piece of a hash at their end.
_PART = re.compile(r"(?P<stem>.+?)-(?P<part>\d{5})-of-(?P<parts>\d{5})(-[0-9a-f]{16})?")
_ARROW_ROWS = "state.json"  # what `datasets` leaves in a folder of rows without splits
_HIDDEN = (".", "~$")  # how files begin that programs leave beside rows: .DS_Store, ._train.csv, ~$train.xlsx
_NUMBER = re.compile(r"[0-9a-f]*\d[0-9a-f]*")  # of a part of a file, or of who wrote it
DECLARATION = "task.json"


@dataclass(frozen=True, kw_only=True)
class Layout:
    """The files of each split, relative to the folder, in order; and what is to be said about the choice."""

    files: Mapping[str, Sequence[str]]
    notes: Sequence[str] = ()
    faults: Sequence[str] = ()
    others: Sequence[str] = ()  # files of rows, by their names, that are of no split
    sheets: Mapping[str, str] = field(
        default_factory=dict
    )  # of a split -> the sheet of its file, where splits share one


def files_below(folder: Path) -> list[Path]:
    """The files that can hold rows.

    They are those of the folder and of its `data`, and of folders that are called as splits or as their files
    (`train/data-00000-of-00001.arrow` of `datasets`, `train.parquet/part-00000.parquet` of Spark). Where these make no
    split, and one folder of all others has files that do, as a folder of the hub's for its only configuration has, it
    is those.
    """
    files = [*_inside(folder), *_inside(folder / "data")]
    folders = [path for path in sorted(folder.iterdir()) if path.is_dir() and not path.name.startswith(_HIDDEN)]
    for inner in folders:
        if split_of_folder(inner.name) is not None:
            files += [path for path in _inside(inner) if _is_rows(path.name) or _is_part(path.name)]
    layout = find_layout([path.relative_to(folder).as_posix() for path in files])
    if not layout.files and not layout.others:
        nested = [inner for inner in folders if inner.name != "data" and _makes_splits(inner)]
        if len(nested) == 1 and not (nested[0] / DECLARATION).exists():
            files += _inside(nested[0])
    return files


def _inside(folder: Path) -> list[Path]:
    """The files of a folder, but for what programs leave beside rows; none where there is no such folder."""
    if not folder.is_dir():
        return []
    files = [path for path in sorted(folder.iterdir()) if path.is_file() and not path.name.startswith(_HIDDEN)]
    return [path for path in files if not (path.suffix == ".arrow" and path.name.startswith("cache-"))]  # of `datasets`


def _makes_splits(folder: Path) -> bool:
    return "train" in find_layout([path.name for path in _inside(folder)]).files


def split_of_folder(name: str) -> str | None:
    """The split that a folder of parts is of, by its name: `train`, `train.parquet`."""
    name = name.lower()
    return CALLED.get(name) or CALLED.get(name.removesuffix(ending_of(name)) if ending_of(name) in ENDINGS else "")


def misplaced(folder: Path) -> list[str]:
    """The faults of what is called as a file of rows or a task.json and cannot be read as one."""
    faults = []
    for path in sorted(folder.iterdir()):
        if _is_rows(path.name) and path.is_symlink() and not path.exists():
            faults.append(f"{path.name}: must be a file, but is a link to {path.readlink()}, which is not there")
        elif path.is_dir() and ending_of(path.name) in ENDINGS and split_of_folder(path.name) and not _inside(path):
            faults.append(f"{path.name}: must be a file, or a folder with the parts of one, but is an empty folder")
        elif path.name != DECLARATION and path.name.lower() == DECLARATION:
            faults.append(f"{path.name}: must be called {DECLARATION}, all in small letters, to be read")
    return faults


def remedy(folder: Path, names: Sequence[str]) -> str:
    """What a folder without splits may want of its owner; begins with a semicolon where it is not empty."""
    packed = [name for name in names if Path(name.lower()).suffix in _ARCHIVES]
    if packed:
        return f"; unpack {', '.join(packed[:3])}, or pack one file each, such as train.csv.gz or train.csv.zip"
    nested = [inner.name for inner in sorted(folder.iterdir()) if inner.is_dir() and _makes_splits(inner)]
    if nested:
        return f"; each of its folders {', '.join(nested[:5])} could be a task: name one, such as {folder / nested[0]}"
    other = sorted({ending for name in names if (ending := ending_of(name)) in (".pkl", ".pickle", ".orc", ".h5")})
    return f"; {', '.join(other)} is not read: save rows as .parquet or .csv" if other else ""


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
        found = _further(names, part="end")
    if "train" not in found and not {*SPLITS, WHOLE} & own.keys():
        begun = _further(names, part="start")
        own, found = ({}, begun) if "train" in begun and len(begun) > 1 else (own, found)
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
    if not chosen and _ARROW_ROWS in names and (parts := [name for name in names if name.endswith(".arrow")]):
        absent = _missing_parts(WHOLE, parts)
        return Layout(
            files={WHOLE: parts}, notes=["all rows are what `datasets` saved"], faults=[absent] if absent else []
        )
    if "train" in chosen and "validation" not in chosen and "validation_matched" in chosen:  # of MNLI
        chosen = {("validation" if split == "validation_matched" else split): chosen[split] for split in chosen}
        chosen = {split: chosen[split] for split in in_order(chosen)}
        notes.append("validation is validation_matched")
    if not chosen and len(unknown) == 1:
        return Layout(files={WHOLE: unknown}, notes=[f"all rows are {unknown[0]}"])
    if others and chosen:
        notes.append(f"not read, since no split is made of them: {', '.join(others[:10])}")
    return Layout(files=chosen, notes=notes, faults=faults, others=unknown)


def ending_of(name: str) -> str:
    """The ending that says a file's format, packed or not, in small letters."""
    base = name.lower().rpartition("/")[2]
    ending = _suffix(base)
    return _suffix(base[: -len(ending)]) if ending in _PACKED else ending


def _suffix(base: str) -> str:
    """As `Path.suffix`, which takes ten times as long: there are folders of a hundred thousand files."""
    dot = base.rfind(".")
    return base[dot:] if 0 < dot < len(base) - 1 else ""


def _further(names: Sequence[str], *, part: str = "") -> dict[str, list[list[str]]]:
    """split -> the files, or parts of one, that have a name which is as good as its own; best endings only.

    With `part` it is enough that a name ends so, as `reviews_train.csv` does, or starts so, as `train-v2.csv`; then all
    names must be the same otherwise.
    """
    found: dict[str, list[dict[str, list[str]]]] = {}
    rests = set()
    called = [(name, _ending(name, part)) for name in names if name != DECLARATION]
    for rank, endings in enumerate(_FURTHER_ENDINGS):
        for name, ending in called:
            if ending not in endings:
                continue
            split, group = _split_of(name, ending, part=part)
            if split is not None:
                found.setdefault(split, [{} for _ in _FURTHER_ENDINGS])[rank].setdefault(group, []).append(name)
                rests.add(_apart(name, ending)[1])
    if part == "start" and len(rests) != 1:
        return {}
    return {
        split: [sorted(files) for files in next(groups for groups in ranks if groups).values()]
        for split, ranks in found.items()
    }


def _ending(name: str, part: str) -> str:
    """As `ending_of`; what ends in the name of a split, as fastText's `cooking.train`, is a text.

    The ending of what a file such as `train.zip` holds is known when it is read.
    """
    ending = ending_of(name) or _suffix(name.lower().rpartition("/")[2])
    return ".txt" if part == "end" and ending[1:] in CALLED else ending


def _apart(name: str, ending: str) -> tuple[str, str]:
    """The first word of a file's name, and what is left of it without its ending."""
    stem = Path(name).name.lower()
    stem = stem[: stem.rindex(ending)] if ending in stem else stem
    first = re.split(r"[_. -]", stem)[0]
    return first, stem[len(first) :]


def _split_of(name: str, ending: str, *, part: str) -> tuple[str | None, str]:
    """The split a file is of, if any, and what its parts have in common."""
    parent, _, called = name.rpartition("/")
    of_folder = None
    if parent and "/" not in parent and (_is_rows(name) or _is_part(called)):
        of_folder = split_of_folder(parent)
    if of_folder is not None:  # files that differ in numbers alone are parts of one
        return of_folder, f"{parent}/{_NUMBER.sub('#', called.lower())}"
    base = called[: called.lower().rindex(ending)] if ending in called.lower() else called
    numbered = _PART.fullmatch(base)
    stem = (numbered["stem"] if numbered else base).lower()
    group = f"{parent}/{stem}-{numbered['parts']}{ending}" if numbered else name
    if part == "end":
        stem = re.split(r"[_. -]", stem)[-1]
    elif part == "start":
        stem = _apart(name, ending)[0]
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
    endings = (*ENDINGS, ".ndjson", ".feather", ".arrow", *spreadsheet.ENDINGS)
    return ending_of(name) in endings and not name.rpartition("/")[2].startswith(_HIDDEN)


def _is_part(name: str) -> bool:
    """Whether a file in a folder of a split holds rows as JSON, which other files beside them may be too."""
    return ending_of(name) == ".json" and (name.startswith("part-") or name.lower().partition(".")[0] in CALLED)
