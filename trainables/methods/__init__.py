"""Transfer methods, one a file. A method says what is trained of an adapted encoder; `Method` is what its file holds.

To add one, write `trainables/methods/<name>.py`; sweeps find it by its file name, and the contract test of all
methods runs over it the moment it exists.
"""

from __future__ import annotations

import dataclasses
import sys
import typing
from collections.abc import Hashable, Mapping, Sequence
from typing import Any, Protocol, cast

import torch

from trainables.config import Scalar
from trainables.discovery import load_plugin, plugin_names
from trainables.encoder import Encoder
from trainables.faults import FaultsError, unknown_name
from trainables.shape import EncoderShape


class Options(Protocol):
    """The options of a method: a frozen keyword-only dataclass of JSON scalars with defaults."""

    __dataclass_fields__: typing.ClassVar[dict[str, Any]]

    def faults(self, shape: EncoderShape) -> list[str]:
        """Every fault of the values on an encoder of this shape, one sentence each."""
        ...


class Method(Protocol):
    """What a file in this folder holds. K trials with equal stack keys may share a pack."""

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
    options = kind(**{k: float(v) if hints[k] is float and v is not None else v for k, v in values.items()})
    if shape is not None and (faults := [f"{method}.{fault}" for fault in options.faults(shape)]):
        raise FaultsError(f"method {method}", faults)
    return options


def _fits(value: object, hint: Any) -> bool:
    if hint is bool:
        return isinstance(value, bool)
    allowed = (int, float) if hint is float else hint
    return isinstance(value, allowed) and not isinstance(value, bool)


def _type_name(hint: Any) -> str:
    return {int: "a whole number", float: "a number", str: "a name", bool: "true or false"}.get(hint, str(hint))
