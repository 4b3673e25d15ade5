"""The files of this checkout that were written by hand, found without looking into environments and what was built."""

from __future__ import annotations

import fnmatch
import os
import re
from pathlib import Path

ROOT = Path(__file__).parent.parent
GENERATED = {"build", "dist", "sweeps", "node_modules", "__pycache__"}
_HIDDEN = re.compile(r"\.(?!ci\b|pre-commit|rayignore|gitignore)")


def ours(pattern: str) -> list[Path]:
    """Paths, relative to the root, of the files whose names fit the pattern."""
    found = []
    for folder, folders, files in os.walk(ROOT):
        folders[:] = [name for name in folders if not _HIDDEN.match(name) and name not in GENERATED]
        found += [Path(folder, name) for name in fnmatch.filter(files, pattern) if not _HIDDEN.match(name)]
    return sorted(path.relative_to(ROOT) for path in found)
