"""The names of a saved adapter's files, and how they are written, for those who need no torch for it."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from pathlib import Path

from trainables.data.paths import read_json
from trainables.faults import FaultsError

# 2 since what the head reads is an option of every method.
FORMAT_VERSION = 2
CONFIG, WEIGHTS, CARD = "adapter_config.json", "adapter_model.safetensors", "README.md"
REFERENCES = "references"
# What a folder of another library holds beside its own files: a head it has no place for, and what adaptune knows.
OWN_HEAD, OWN_NOTES = "head.safetensors", "adaptune.json"
# What a folder of the library adapters holds beside its configuration, and the LayerNorms that it has no place for.
ADAPTER, HEAD, HEAD_CONFIG = "adapter.safetensors", "model_head.safetensors", "head_config.json"
LAYERNORMS = "layernorms.safetensors"


def check_free(command: str, option: str, folder: Path) -> None:
    """Raises `FaultsError` where a saved adapter cannot be written into a folder without harm to what it holds.

    It must be new, empty, or that of a saved adapter, which is replaced.
    """
    try:
        if not folder.exists() or (folder.is_dir() and (not any(folder.iterdir()) or is_saved(folder))):
            return
    except OSError as error:
        raise FaultsError(command, [f"{option}: must be a folder that can be read, but {error}"]) from None
    came = "holds other things" if folder.is_dir() else "is a file"
    rule = "must be a new or empty folder, or that of a saved adapter"
    raise FaultsError(command, [f"{option}: {rule}, but {folder} {came}; name a folder of its own, such as my-adapter"])


def is_saved(folder: Path) -> bool:
    """Whether a folder holds a saved adapter of ours, or what an interrupted save has left of one. Raises `OSError`.

    Another library's may have files of the same names.
    """
    names = {path.name for path in folder.iterdir()}
    if CONFIG not in names:  # the weights are written first
        return bool(names & {WEIGHTS, _unfinished(WEIGHTS)}) and names <= _WRITTEN
    try:
        about = read_json(folder / CONFIG)
    except ValueError:
        return False
    return isinstance(about, dict) and about.get("library") == "adaptune"


def drop_references(folder: Path) -> None:
    """Remove the files that options name from a folder that is a saved adapter's, and from no other."""
    if folder.is_dir() and is_saved(folder):
        shutil.rmtree(folder / REFERENCES, ignore_errors=True)


def write_files(folder: Path, files: Mapping[str, bytes]) -> None:
    """Write a saved adapter's files by their paths in its folder, the configuration last: a folder that has one is
    whole. One that is there is completed; files that options name replace those that were. Raises `OSError`.
    """
    drop_references(folder)
    for name in sorted(files, key=lambda name: (name == CONFIG, name != WEIGHTS)):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        write_file(folder / name, files[name])


def write_file(path: Path, content: bytes) -> None:
    """Write or replace a file in one step. Raises `OSError`."""
    temporary = path.with_name(_unfinished(path.name))
    temporary.write_bytes(content)
    os.replace(temporary, path)


def _unfinished(name: str) -> str:
    """What a file or folder is called until it is whole."""
    return f".{name}.tmp"


_WRITTEN = {each for name in (CONFIG, WEIGHTS, CARD, REFERENCES) for each in (name, _unfinished(name))}
