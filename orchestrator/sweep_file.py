"""Read the raw values of a sweep: a .py with SWEEP, a .yaml or .json, or the name of a packaged search space."""

from __future__ import annotations

import importlib.util
import json
import pkgutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

import search_spaces
from orchestrator.spec import SweepSpec, SweepSpecError, spec_faults
from trainables.config import HYPERPARAMETERS
from trainables.faults import FaultsError, unknown_name


def read_sweep(reference: str, overrides: Sequence[str] = ()) -> Any:
    """The values a sweep is declared with, `KEY=VALUE` overrides applied; shape and names are not checked here.

    `reference` is a path ending in .py, .yaml, .yml or .json, or the name of a module of `search_spaces`.
    Raises `SweepSpecError` where it is neither, or the file cannot be read as one.
    """
    path = Path(reference)
    packaged = [module.name for module in pkgutil.iter_modules(search_spaces.__path__)]
    if not path.suffix and not path.exists() and reference in packaged:
        path = Path(str(search_spaces.__file__)).parent / f"{reference}.py"
    if not path.is_file():
        rule = "a sweep must be a .py, .yaml or .json file, or a packaged search space"
        raise SweepSpecError(
            reference, [f"{rule}, but there is no such file: {unknown_name('sweep', reference, packaged)}"]
        )
    readers = {".py": _read_python, ".yaml": _read_yaml, ".yml": _read_yaml, ".json": _read_yaml}
    if path.suffix not in readers:
        raise SweepSpecError(reference, [unknown_name("kind of sweep file", path.suffix, readers)])
    values = readers[path.suffix](path)
    if isinstance(values, SweepSpec):
        if not overrides:
            return values
        values = json.loads(values.to_json())
    return apply_overrides(values, overrides)


def apply_overrides(values: Any, overrides: Sequence[str]) -> Any:
    """Set dotted keys of a sweep's values: `seeds=[0]`, `space.num_epochs=1`, `methods.adapter.adapter_size=8`.

    A bare hyperparameter (`num_epochs=1`) stands for `space.<name>`; values are read as YAML. Raises
    `SweepSpecError` with every override that cannot be applied.
    """
    if not overrides or not isinstance(values, Mapping):
        return values
    result = json.loads(json.dumps(values, default=lambda v: v.to_json() if hasattr(v, "to_json") else str(v)))
    faults: list[str] = []
    for override in overrides:
        key, equals, text = override.partition("=")
        if not equals or not key:
            faults.append(f"--set: must be KEY=VALUE, but got {override!r}")
            continue
        try:
            value = YAML(typ="safe", pure=True).load(text)
        except YAMLError:
            faults.append(f"--set {key}: the value must be YAML, but got {text!r}")
            continue
        path = key.split(".")
        if path[0] in HYPERPARAMETERS:
            path = ["space", *path]
        if fault := _set(result, path, value):
            faults.append(f"--set {key}: {fault}")
    if faults:
        raise SweepSpecError("overrides", faults)
    return result


def _set(container: dict[str, Any], path: list[str], value: Any) -> str | None:
    head, *rest = path
    if not rest:
        container[head] = value
        return None
    child = container.setdefault(head, {})
    if head == "methods" and isinstance(child, list):
        names = [entry if isinstance(entry, str) else next(iter(entry), "") for entry in child]
        if rest[0] not in names or len(rest) == 1:
            return unknown_name("method of this sweep", rest[0], names)
        for i, name in enumerate(names):
            if name == rest[0]:
                entry = child[i] if isinstance(child[i], dict) else {name: {}}
                child[i] = {name: {**(entry[name] or {})}}
                _set(child[i][name], rest[1:], value)
        return None
    if not isinstance(child, dict):
        return f"{head} is no mapping, but {child!r}"
    return _set(child, rest, value)


def _read_yaml(path: Path) -> Any:
    try:
        # YAML 1.2: 3e-4 is a number and `no` a string; a key that stands twice is an error.
        return YAML(typ="safe", pure=True).load(path.read_text(encoding="utf-8"))
    except (YAMLError, UnicodeDecodeError) as error:
        raise SweepSpecError(str(path), [f"must be readable as YAML: {' '.join(str(error).split())}"]) from None


def _read_python(path: Path) -> Any:
    spec = importlib.util.spec_from_file_location("sweep_file", path)
    assert spec is not None and spec.loader is not None  # a .py path always has a loader
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except ValidationError as error:
        raise SweepSpecError(str(path), spec_faults(error)) from None
    except FaultsError as error:
        raise SweepSpecError(str(path), error.faults) from None
    except Exception as error:  # whatever a user's file raises is a fault of that file
        raise SweepSpecError(str(path), [f"must run as Python, but raised {type(error).__name__}: {error}"]) from None
    if not hasattr(module, "SWEEP"):
        raise SweepSpecError(str(path), ["must hold a constant SWEEP, a SweepSpec or a mapping of the same shape"])
    return module.SWEEP
