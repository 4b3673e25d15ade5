"""Transfer methods, one a file. A method says what is trained of an adapted encoder; `Method` is what its file holds.

To add one, write `trainables/methods/<name>.py`; sweeps find it by its file name, and the contract test of all
methods runs over it the moment it exists.
"""

from __future__ import annotations

import dataclasses
import hashlib
import sys
import typing
from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, cast, get_args

import torch

from trainables.config import Scalar, TrialConfig
from trainables.data import TokenizedSplit
from trainables.discovery import load_plugin, plugin_names
from trainables.encoder import Encoder
from trainables.faults import FaultsError, unknown_name
from trainables.metrics import Kind
from trainables.shape import EncoderShape
from trainables.task import Task, TaskInfo


class Options(Protocol):
    """The options of a method: a frozen keyword-only dataclass of JSON scalars with defaults."""

    __dataclass_fields__: typing.ClassVar[dict[str, Any]]

    def faults(self, shape: EncoderShape) -> list[str]:
        """Every fault of the values on an encoder of this shape, one sentence each."""
        ...


class Method(Protocol):
    """What a file in this folder holds. K trials with equal stack keys may share a pack.

    It may also hold

    - `KINDS`, the kinds of tasks it can train, where those are not all;
    - `USES_BACKBONE = False`, where what it computes does not depend on the backbone;
    - `tokenize(task, options, max_length)`, a task's splits as it reads them, where that is not as the backbone does;
    - `references(options)`, for options that name files or folders the paths that are read. What those hold identifies
      a trial, not where they lie;
    - `starts_unchanged(options)`, whether what the head reads is, before the first step, what the backbone gives.
    """

    Options: type[Any]

    def adapt(self, view: Encoder, options: Sequence[Any], generators: Sequence[torch.Generator]) -> None:
        """Make a view's trained parts: replace modules or take trained copies, for the K trials of these options.

        What is trained requires gradients and is float32. It has a leading trial axis, but where the method packs no
        trials. A module sees K anew at each step from the tensors it finds. Initial values of trial k are drawn
        from generators[k] on the CPU, so that they are the same on every device.
        """
        ...

    def trained_params(self, shape: EncoderShape, options: Any) -> int:
        """The closed formula of the trained parameters of one trial, head left out."""
        ...

    def stack_key(self, options: Any) -> Hashable | None:
        """Equal for trials whose trained tensors stack: equal shapes, equal uses; None for packs of one."""
        ...


def kind_faults(method: str, task: TaskInfo) -> list[str]:
    """The fault of a task of a kind that the method cannot train."""
    kinds = getattr(get_method(method), "KINDS", get_args(Kind))
    if task.kind in kinds:
        return []
    return [f"method {method}: trains tasks of kind {' or '.join(kinds)}, but {task.name} is of kind {task.kind}"]


def tokenized_by_method(task: Task, config: TrialConfig) -> Mapping[str, TokenizedSplit] | None:
    """The splits of a task as the trial's method reads them; None where it reads them as the backbone does."""
    tokenize = getattr(get_method(config.method), "tokenize", None)
    if tokenize is None:
        return None
    return cast(
        Mapping[str, TokenizedSplit],
        tokenize(task, parse_options(config.method, config.method_options), config.max_length),
    )


def uses_backbone(method: str) -> bool:
    """Whether what a method computes depends on the backbone."""
    return bool(getattr(get_method(method), "USES_BACKBONE", True))


def references_of(method: str, options: Mapping[str, Scalar]) -> dict[str, tuple[Path, ...]]:
    """The files and folders that options of a method name, by option."""
    references = getattr(get_method(method), "references", None)
    return {} if references is None else dict(references(parse_options(method, options)))


def identity_of(method: str, options: Mapping[str, Scalar]) -> dict[str, Scalar]:
    """What of a method's options decides a trial's outcome.

    Options at their defaults are left out, so that a method may get new ones without its old trials becoming others
    (a default that changes raises `OUTCOME_VERSION`). In place of a path stands a hash of what lies there.
    """
    parsed, defaults = parse_options(method, options), parse_options(method, {})
    names = [name for name in option_names(method) if getattr(parsed, name) != getattr(defaults, name)]
    found: dict[str, Scalar] = {name: getattr(parsed, name) for name in names}
    references = references_of(method, options).items()
    return found | {name: ",".join(content_hash(path) for path in paths) for name, paths in references}


def content_hash(path: Path) -> str:
    """The SHA-256 of a file, or of every file of a folder with its name. Raises `OSError` where there is neither."""
    files = sorted(file for file in path.rglob("*") if file.is_file()) if path.is_dir() else [path]
    digest = hashlib.sha256()
    for file in files:
        with file.open("rb") as stream:
            digest.update(str(file.relative_to(path)).encode())
            digest.update(hashlib.file_digest(stream, "sha256").digest())
    return digest.hexdigest()[:16]


def method_names() -> list[str]:
    """The known methods."""
    return plugin_names(sys.modules[__name__])


def get_method(name: str) -> Method:
    """A method by name. Raises `FaultsError` naming the known ones."""
    return cast(Method, load_plugin(sys.modules[__name__], "method", name))


def option_names(method: str) -> list[str]:
    """The options of a method, which a sweep may search."""
    return [f.name for f in dataclasses.fields(get_method(method).Options)]


def parse_options(method: str, values: Mapping[str, Scalar], shape: EncoderShape | None = None) -> Any:
    """A method's options from plain values, defaults filled in.

    Raises `FaultsError` with every unknown name, wrong type and broken rule (rules need the shape).
    """
    kind = get_method(method).Options
    hints = typing.get_type_hints(kind)
    faults = [unknown_name(f"option of method {method}", key, hints) for key in values if key not in hints]
    faults += [
        f"{method}.{key}: must be {_type_name(hints[key])}, but got {value!r}"
        for key, value in values.items()
        if key in hints and not _fits(value, hints[key])
    ]
    if faults:
        raise FaultsError(f"method {method}", faults)
    options = kind(**{k: float(v) if _plain(hints[k]) is float and v is not None else v for k, v in values.items()})
    if shape is not None and (faults := [f"{method}.{fault}" for fault in options.faults(shape)]):
        raise FaultsError(f"method {method}", faults)
    return options


def _plain(hint: Any) -> Any:
    """The type of an option's values other than null."""
    kinds = [kind for kind in get_args(hint) if kind is not type(None)]
    return kinds[0] if kinds else hint


def _fits(value: object, hint: Any) -> bool:
    if value is None:
        return type(None) in get_args(hint)
    kind = _plain(hint)
    if kind is bool:
        return isinstance(value, bool)
    return isinstance(value, (int, float) if kind is float else kind) and not isinstance(value, bool)


def _type_name(hint: Any) -> str:
    names = {int: "a whole number", float: "a number", str: "a name", bool: "true or false"}
    return names[_plain(hint)] + (" or null" if type(None) in get_args(hint) else "")
