"""Plug-ins are found by their file name: a new file in the folder is a new plug-in, and no list names it."""

from __future__ import annotations

import ast
import functools
import importlib
import importlib.util
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


def plugins_declaring(package: str, constant: str, value: object) -> frozenset[str]:
    """The plug-ins whose file says `constant = value`, read without importing them.

    Methods come with torch, and a report or a spec, which ask what a method is like, do without. What a file computes
    is not read: a constant stands there as it is.
    """
    spec = importlib.util.find_spec(package)
    found = set()
    for folder in map(Path, (spec and spec.submodule_search_locations) or ()):
        for path in (*folder.glob("[!_]*.py"), *folder.glob("[!_]*/__init__.py")):
            if _constant(path, path.stat().st_mtime_ns, constant) == value:
                found.add(path.parent.name if path.name == "__init__.py" else path.stem)
    return frozenset(found)


@functools.lru_cache(maxsize=256)
def _constant(path: Path, changed_at: int, name: str) -> object:
    said = [node for node in ast.parse(path.read_bytes()).body if isinstance(node, ast.Assign)]
    own = [node.value for node in said if any(isinstance(at, ast.Name) and at.id == name for at in node.targets)]
    return own[-1].value if own and isinstance(own[-1], ast.Constant) else None
