"""Plug-ins are found by their file name: a new file in the folder is a new plug-in, and no list names it."""

from __future__ import annotations

import functools
import importlib
import pkgutil
from pathlib import Path
from types import ModuleType

from trainables.faults import FaultsError, unknown_name


def plugin_names(package: ModuleType) -> list[str]:
    """The plug-ins of a package: its modules without a leading underscore, sorted by name."""
    return list(_names(tuple(package.__path__), sum(Path(folder).stat().st_mtime_ns for folder in package.__path__)))


@functools.lru_cache(maxsize=16)
def _names(folders: tuple[str, ...], changed_at: int) -> tuple[str, ...]:
    """Read once as long as nothing is added or removed: planning asks at every trial."""
    return tuple(sorted(m.name for m in pkgutil.iter_modules(folders) if not m.name.startswith("_")))


def load_plugin(package: ModuleType, kind: str, name: str) -> ModuleType:
    """Import one plug-in. Raises `FaultsError` naming the known ones where there is no such file."""
    known = plugin_names(package)
    if name not in known:
        raise FaultsError(kind, [unknown_name(kind, name, known)])
    return importlib.import_module(f"{package.__name__}.{name}")
