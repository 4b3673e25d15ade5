"""The names of a saved adapter's files, and how they are written, for those who need no torch for it."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from pathlib import Path

# 2 since what the head reads is an option of every method.
FORMAT_VERSION = 2
CONFIG, WEIGHTS, CARD = "adapter_config.json", "adapter_model.safetensors", "README.md"
REFERENCES = "references"
# What a folder of another library holds beside its own files: a head it has no place for, and what adaptune knows.
OWN_HEAD, OWN_NOTES = "head.safetensors", "adaptune.json"
# What a folder of the library adapters holds beside its configuration, and the LayerNorms that it has no place for.
ADAPTER, HEAD, HEAD_CONFIG = "adapter.safetensors", "model_head.safetensors", "head_config.json"
LAYERNORMS = "layernorms.safetensors"


def write_files(folder: Path, files: Mapping[str, bytes]) -> None:
    """Write a saved adapter's files by their paths in its folder, the configuration last: a folder that has one is
    whole. One that is there is completed; files that options name replace those that were. Raises `OSError`.
    """
    shutil.rmtree(folder / REFERENCES, ignore_errors=True)
    for name in sorted(files, key=lambda name: name == CONFIG):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        write_file(folder / name, files[name])


def write_file(path: Path, content: bytes) -> None:
    """Write or replace a file in one step. Raises `OSError`."""
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.write_bytes(content)
    os.replace(temporary, path)
