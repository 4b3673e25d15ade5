"""What identifies a backbone: a hash of everything in its folder that decides what the encoder computes."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from trainables.backbones.tokenizer_files import MOST_BYTES, settings_that_matter, vocabulary_files
from trainables.data.paths import check_file, read_json
from trainables.faults import FaultsError


def fingerprint_of(folder: Path, model_type: str, reading: Mapping[str, Any]) -> str:
    """A hash of everything in the folder that decides what the encoder computes.

    That is its configuration, weights and vocabulary, what its tokenizer's settings change, and in `reading` what else
    is declared of how it reads a text. Raises `ValueError` where the tokenizer's settings cannot be read.
    """
    files = [folder / "config.json", *weight_files(folder)]
    named = [folder / name for name in ("tokenizer.json", "vocab.txt", "merges.txt") if (folder / name).exists()]
    of_tokenizer = [*named, *vocabulary_files(folder)]
    for path in of_tokenizer:
        check_file(path, MOST_BYTES)
    digest = hashlib.sha256()
    for path in [*files, *of_tokenizer]:
        stat = path.stat()
        digest.update(_file_hash(path, stat.st_size, stat.st_mtime_ns).encode())
    if settings := {**settings_that_matter(folder, model_type), **reading}:
        digest.update(json.dumps(settings, sort_keys=True).encode())
    return digest.hexdigest()[:16]


def weight_files(folder: Path) -> list[Path]:
    """The safetensors files of a folder; none where it holds no weights. Raises `FaultsError` for a broken index.

    Where there is a single file, an index beside it is one of other weights, as it is to transformers.
    """
    single, index = folder / "model.safetensors", folder / "model.safetensors.index.json"
    if single.exists() or not index.exists():
        return [single] if single.exists() else []
    try:
        names = set(read_json(index)["weight_map"].values())
        return sorted(folder / name for name in names)
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        raise FaultsError("backbone", [f"backbone: {index} must be an index of tensors, but is none"]) from None


@lru_cache(maxsize=64)
def _file_hash(path: Path, size: int, changed_at: int) -> str:
    """The SHA-256 of a file's bytes, read once as long as its size and time of change stay."""
    check_file(path)
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
