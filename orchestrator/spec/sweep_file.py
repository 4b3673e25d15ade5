"""Read the raw values of a sweep: a .py with SWEEP, a .yaml or .json, or the name of a packaged search space."""

from __future__ import annotations

import difflib
import importlib.util
import json
import pkgutil
import sys
import traceback
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from pydantic import ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.nodes import MappingNode, SequenceNode

from orchestrator.spec.early_stopping import NONE, Rule, rule_to_json
from orchestrator.spec.space import Domain
from orchestrator.spec.spec import SweepSpec, SweepSpecError, plain_copy, spec_faults
from trainables.config import HYPERPARAMETERS
from trainables.data.paths import existing_path, expanded_path, read_small, read_small_bytes
from trainables.faults import FaultsError, unknown_name


def read_sweep(reference: str, overrides: Sequence[str] = ()) -> Any:
    """The values a sweep is declared with, `KEY=VALUE` overrides applied; shape and names are not checked here.

    `reference` is a path ending in .py, .yaml, .yml or .json, or the name of a module of `search_spaces`.
    Raises `SweepSpecError` where it is neither, or the file cannot be read as one.
    """
    path = _find(reference)
    if path.suffix not in _READERS:
        raise SweepSpecError(reference, [unknown_name("kind of sweep file", path.suffix, _READERS)])
    values = _READERS[path.suffix](path)
    if fault := _size_fault(values):
        raise SweepSpecError(str(path), [fault])
    return apply_overrides(values, overrides)


def packaged_sweeps() -> dict[str, Path]:
    """The declared sweeps that come with adaptune, by name. They are found without being imported."""
    spec = importlib.util.find_spec("search_spaces")
    folders = list(spec.submodule_search_locations or ()) if spec is not None else []
    return {
        module.name: Path(folder) / f"{module.name}.py"
        for folder in folders
        for module in pkgutil.iter_modules([folder])
    }


def _find(reference: str) -> Path:
    try:
        path = expanded_path(reference)
    except ValueError:  # no path can be called so, which is said below
        path = Path(reference)
    packaged = packaged_sweeps()
    try:
        if path.is_file():
            return path
    except OSError as error:
        raise SweepSpecError(reference, [f"a sweep must be readable, but {error}"]) from None
    if reference in packaged:
        return packaged[reference]
    near = difflib.get_close_matches(reference, packaged, n=1)
    hint = f"; did you mean {near[0]!r}?" if near else "."
    rule = "a sweep must be a .py, .yaml or .json file, or the name of a packaged one"
    came = f"there is no file {reference!r}{hint}"
    if reference and path.is_dir():
        is_store = existing_path(str(path / "spec.json")) is not None
        what = "the store of one" if is_store else "a folder"
        remedy = (
            f"`adaptune resume {reference}` goes on with it" if is_store else "a sweep lists task folders in `tasks`"
        )
        came = f"{reference!r} is {what}; {remedy}."
    raise SweepSpecError(reference, [f"{rule}, but {came} Packaged: {', '.join(sorted(packaged))}"])


_DEEPEST = 100  # dots in the key of an override: no sweep is nested a tenth as deep


def apply_overrides(values: Any, overrides: Sequence[str]) -> Any:
    """Set dotted keys of a sweep's values: `seeds=[0]`, `space.num_epochs=1`, `methods.adapter.adapter_size=8`.

    A bare hyperparameter (`num_epochs=1`) stands for `space.<name>`; values are read as YAML. They are applied in their
    order, so that one may change what another before it has set. Raises `SweepSpecError` with every override that
    cannot be applied.
    """
    if not isinstance(values, Mapping | SweepSpec):
        return values
    result: Any = values
    faults: list[str] = []
    for override in overrides:
        try:
            result = plain_copy(result)  # anew for each, for what the one before has set may be in a short form
        except RecursionError:
            break  # what is wrong with it is said when it is parsed
        key, equals, text = override.partition("=")
        if not equals or not all(key.split(".")):
            faults.append(f"--set: must be KEY=VALUE, but got {override!r}")
            continue
        if key.count(".") > _DEEPEST:
            faults.append(f"--set {key[:40]}...: a key must have at most {_DEEPEST} dots, but has {key.count('.'):,}")
            continue
        try:
            value = _load_yaml(text)
        except _NotYaml:
            faults.append(f"--set {key}: the value must be YAML, but got {text!r}")
            continue
        if fault := _size_fault(value):
            faults.append(f"--set {key}: {fault}")
            continue
        path = key.split(".")
        if path[0] in HYPERPARAMETERS:
            path = ["space", *path]
        if fault := _set(result, path, value) or _effect_fault(result, path):
            faults.append(f"--set {key}: {fault}")
    if faults:
        raise SweepSpecError("overrides", faults)
    return result


def _set(values: dict[str, Any], path: Sequence[str], value: Any) -> str | None:
    """Put a value where a path leads; returns why it leads nowhere."""
    head, *rest = path
    if head == "methods" and rest and isinstance(values.get("methods"), list):
        return _set_in_methods(values["methods"], rest, value)
    if not rest:
        values[head] = value
        return None
    child = _as_mapping(head, values.get(head))
    if not isinstance(child, dict):
        return f"{head} must be a mapping to set {'.'.join(rest)} in it, but is {child!r}"
    values[head] = child
    return _set(child, rest, value)


def _as_mapping(key: str, value: Any) -> Any:
    """A value in the form in which something can be set in it, where it has one."""
    if isinstance(value, Domain):
        return value.to_json()
    if key == "early_stopping" and isinstance(value, str | Rule):
        value = {} if value == NONE else rule_to_json(value)
        return {value: None} if isinstance(value, str) else value
    return {} if value is None else value


def _effect_fault(values: Mapping[str, Any], path: Sequence[str]) -> str | None:
    """That a hyperparameter of the space is set for nobody, since each method has one of its own."""
    entries = values.get("methods")
    if len(path) < 2 or path[0] != "space" or not isinstance(entries, list) or not entries:
        return None
    spaces = [entry.get("space") if isinstance(entry, dict) else None for entry in entries]
    if not all(isinstance(space, Mapping) and path[1] in space for space in spaces):
        return None
    places = dict.fromkeys(f"methods.{entry.get('method')}.{path[1]}" for entry in entries)
    return f"would change nothing, since every method has its own {path[1]}; set {', '.join(places)}"


def _set_in_methods(entries: list[Any], path: Sequence[str], value: Any) -> str | None:
    """Set an option of a method, in each of its entries where it has several."""
    method, *rest = path
    named = [entry for entry in entries if isinstance(entry, dict) and entry.get("method") == method]
    if not named:
        known = [str(entry["method"]) for entry in entries if isinstance(entry, dict) and "method" in entry]
        return unknown_name("method of this sweep", method, known)
    faults = [_set(entry, ["space", *rest], value) for entry in named]
    return next((fault for fault in faults if fault), None)


class _NotYaml(Exception):
    """What the parser says of a text that it cannot read."""


def _load_yaml(text: str) -> Any:
    """YAML 1.2: 3e-4 is a number and `no` a string; a key that stands twice is an error."""
    try:
        if "<<" in text and (number := _merged_keys(YAML(typ="safe", pure=True).compose(text))) > MAX_VALUES:
            raise _NotYaml(f"its merged mappings (<<) would hold {number:,} keys, more than {MAX_VALUES:,}")
        return YAML(typ="safe", pure=True).load(text)
    except _NotYaml:
        raise
    except MarkedYAMLError as error:
        raise _NotYaml(_where_and_why(error)) from None
    except YAMLError as error:
        raise _NotYaml(" ".join(str(error).split())) from None
    except Exception as error:  # the parser stumbles over impossible dates, keys that are lists, and deep nesting
        raise _NotYaml(f"{type(error).__name__}: {error}") from None


def _merged_keys(root: Any) -> int:
    """How many keys the mappings of a document have, those merged into them counted as often as the parser copies them.

    A mapping that merges another nine times, which merges a third nine times and so on, is never done being read.
    """
    counts: dict[int, int] = {}

    def count(node: Any) -> int:
        """Of a mapping after what it merges; of a list, of those in it. Its parts are counted along."""
        if id(node) in counts or not isinstance(node, MappingNode | SequenceNode):
            return counts.get(id(node), 0)
        counts[id(node)] = 0  # while its parts are counted: what contains itself is refused elsewhere
        if isinstance(node, SequenceNode):
            found = sum([count(part) for part in node.value])
        else:
            merged = sum([count(value) for key, value in node.value if key.value == "<<"])
            for _, value in node.value:
                count(value)
            found = len(node.value) + merged
        counts[id(node)] = found
        return found

    count(root)
    return max(counts.values(), default=0)


# What the parser calls the mistakes that are made most often -> what to do.
_REMEDIES = {
    "expected <block end>": "the lines of one list or mapping must begin in the same column",
    "mapping values are not allowed here": "a text with a colon needs quotation marks, or a line is indented too far",
    "found character '\\t'": "indent with spaces, not with tabs",
    "found unhashable key": "a key must be text; one that begins with a bracket needs quotation marks",
    "could not find expected ':'": "a key needs a colon and a space after it",
}


def _where_and_why(error: MarkedYAMLError) -> str:
    """What the parser says, as one line: the place in the file, the problem, what it was reading, what to do."""
    mark = error.problem_mark or error.context_mark
    place = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
    problem = error.problem or "it is not YAML"
    if problem.startswith("found duplicate key"):
        return f"{place}duplicate key {problem.split()[3]}"
    begins = error.context_mark
    # Where what could not be read began, if that is in another line.
    since = f" that begins in line {begins.line + 1}" if begins and mark and begins.line != mark.line else ""
    context = f" {error.context}{since}" if error.context else ""
    remedy = next((f"; {remedy}" for said, remedy in _REMEDIES.items() if said in problem), "")
    return f"{place}{problem}{context}{remedy}"


# A few lines of YAML whose anchors stand for each other can be more values than any memory holds.
MAX_VALUES = 1_000_000


def _size_fault(values: Any) -> str | None:
    """The fault of values that are too many once everything that is shared among them is written out."""
    counts: dict[int, int] = {}

    def count(value: Any) -> int:
        if not isinstance(value, Mapping | list | tuple):
            return 1
        if id(value) not in counts:
            counts[id(value)] = 1  # while its parts are counted: what contains itself is refused elsewhere
            parts = value.values() if isinstance(value, Mapping) else value
            counts[id(value)] = 1 + sum(count(part) for part in parts)
        return counts[id(value)]

    try:
        number = count(values)
    except RecursionError:
        return None  # refused elsewhere too
    return f"must hold at most {MAX_VALUES:,} values, but holds {number:,}" if number > MAX_VALUES else None


def _read_yaml(path: Path) -> Any:
    try:
        return _load_yaml(read_small(path))
    except (_NotYaml, OSError, ValueError) as error:
        raise SweepSpecError(str(path), [f"must be readable as YAML, but {error}"]) from None


def _read_python(path: Path) -> Any:
    # Of a name that no other file has, be it one that this file reads in its turn.
    module = ModuleType(f"sweep_file_{uuid.uuid4().hex}")
    module.__file__ = str(path)
    try:
        code = read_small_bytes(path)
    except (OSError, ValueError) as error:
        raise SweepSpecError(str(path), [f"must be readable as Python, but {error}"]) from None
    sys.modules[module.__name__] = module  # where dataclasses look for what annotations in quotes mean
    try:
        exec(compile(code, path, "exec"), vars(module))
    except ValidationError as error:
        raise SweepSpecError(str(path), spec_faults(error)) from None
    except FaultsError as error:
        raise SweepSpecError(str(path), error.faults) from None
    except (Exception, SystemExit) as error:  # whatever a user's file raises is a fault of that file
        lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(path)]
        where = f" in line {lines[-1]}" if lines else ""
        raised = f"{type(error).__name__}: {_words_of(error)}".removesuffix(": ")
        raise SweepSpecError(str(path), [f"must run as Python, but raised{where} {raised}"]) from None
    finally:
        # Out again: what cannot be imported is pickled by value, and so can be read in other processes.
        sys.modules.pop(module.__name__, None)
    if not hasattr(module, "SWEEP"):
        raise SweepSpecError(str(path), ["must hold a constant SWEEP, a SweepSpec or a mapping of the same shape"])
    return module.SWEEP


def _words_of(error: BaseException) -> str:
    try:
        return str(error)
    except Exception:  # an exception of the user's own may not even be able to say what it is
        return ""


def _read_json(path: Path) -> Any:
    """JSON by its own rules: YAML does not join the halves in which JSON writes what is beyond 16 bits."""
    try:
        return json.loads(read_small(path, encoding="utf-8-sig"), object_pairs_hook=_without_twins)
    except (OSError, ValueError, RecursionError) as error:
        raise SweepSpecError(str(path), [f"must be readable as JSON, but {error}"]) from None


def _without_twins(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    keys = [key for key, _ in pairs]
    if len(set(keys)) < len(keys):
        raise ValueError(f"found duplicate key {next(key for key in keys if keys.count(key) > 1)!r}")
    return dict(pairs)


_READERS = {".py": _read_python, ".yaml": _read_yaml, ".yml": _read_yaml, ".json": _read_json}
