"""Paths as users write them, which may name nothing that could ever be there, or what is no file and never ends."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path
from typing import Any

from trainables.faults import FaultsError


def existing_path(reference: str) -> Path | None:
    """The file or folder that a text names, `~` expanded; None where there is none, or no path can be called so."""
    try:
        path = Path(reference).expanduser()
        return path if reference and path.exists() else None
    except (OSError, ValueError, RuntimeError):  # too long a name, a zero byte, the home of nobody, links in a circle
        return None


def expanded_path(reference: str) -> Path:
    """The file or folder that a text names, which need not be there, `~` expanded.

    Raises `ValueError` where no path can be called so.
    """
    if not reference or "\0" in reference:
        raise ValueError(f"must be a path, but got {reference!r}")
    try:
        return Path(reference).expanduser()
    except RuntimeError:
        raise ValueError(f"must be a path, but {reference.partition('/')[0]} is the home of nobody") from None


def given_path(subject: str, argument: str, given: str | Path) -> Path:
    """The path that somebody gave for an argument, as `expanded_path` finds it; every door that takes one asks here.

    Raises `FaultsError` in the name of what takes it.
    """
    try:
        if not isinstance(text := os.fspath(given), str):
            raise ValueError(f"must be a path, but got {given!r}")
        return expanded_path(text)
    except TypeError:
        raise FaultsError(subject, [f"{argument}: must be a path, but got {given!r}"]) from None
    except ValueError as error:
        raise FaultsError(subject, [f"{argument}: {error}"]) from None


MOST_BYTES = 64 << 20  # of a file that says how something is to be read or computed: far more than any has


def check_file(path: Path, most_bytes: int | None = None) -> None:
    """Raises `ValueError` where a path leads to what may never end when it is read, and `OSError` where to nothing.

    That is a pipe, a socket or a device, and with `most_bytes` a file that is larger.
    """
    status = path.stat()
    if not (stat.S_ISREG(status.st_mode) or stat.S_ISDIR(status.st_mode)):  # whoever reads a folder is told so
        raise ValueError(f"{path.name} is a pipe, a socket or a device and not a file")
    if most_bytes is not None and status.st_size > most_bytes:
        raise ValueError(f"{path.name} has {status.st_size:,} bytes, more than the {most_bytes:,} that it may have")


def read_small_bytes(path: Path, *, most_bytes: int = MOST_BYTES) -> bytes:
    """The content of a small file, such as a configuration.

    Raises `OSError` where it cannot be read, and `ValueError` where it is no file or larger than `most_bytes`.
    """
    check_file(path, most_bytes)
    with path.open("rb") as content:  # some file systems show their files as empty until they are read
        held = content.read(most_bytes + 1)
    if len(held) > most_bytes:
        raise ValueError(f"{path.name} has more than the {most_bytes:,} bytes that it may have")
    return held


def read_small(path: Path, *, encoding: str = "utf-8", most_bytes: int = MOST_BYTES) -> str:
    """The text of a small file. Raises as `read_small_bytes`, and `ValueError` where it is not in this encoding."""
    return read_small_bytes(path, most_bytes=most_bytes).decode(encoding)


def read_json(path: Path, *, encoding: str = "utf-8", most_bytes: int = MOST_BYTES) -> Any:
    """The value in a small file of JSON. Raises as `read_small`, and `ValueError` where it is no JSON."""
    try:
        return json.loads(read_small(path, encoding=encoding, most_bytes=most_bytes))
    except RecursionError:
        raise ValueError(f"{path.name} is nested too deeply") from None
