"""The kernels in C, compiled once for all tests that start processes with a cache of their own."""

from __future__ import annotations

from pathlib import Path

from trainables.nn.kernels import native


def cache_with_kernels(folder: Path) -> Path:
    """Make a cache folder, empty but for the kernels where there is a compiler: compiling takes seconds a process."""
    folder.mkdir(parents=True, exist_ok=True)
    if native.library() is not None:
        (folder / "native").symlink_to(native.cache())
    return folder
