"""What questions are asked with: names and numbers, from whoever asks, so of any kind. Numpy's numbers are numbers."""

from __future__ import annotations

import numbers
from collections.abc import Collection, Iterable
from typing import Any

from trainables.faults import unknown_name


def name_faults(kind: str, name: object, known: Collection[str]) -> list[str]:
    """That a name is not among the known ones, if it is not. Whatever is no text is no known name, a list included."""
    return [] if isinstance(name, str) and name in known else [unknown_name(kind, name, known)]


def as_list(given: Any) -> list[Any]:
    """Several of something as a list; one thing that stands alone, such as a name, is one of them."""
    return list(given) if isinstance(given, Iterable) and not isinstance(given, str | bytes) else [given]


def is_number(value: object) -> bool:
    """Whether it is a real number; true and false are none."""
    return isinstance(value, numbers.Real) and not isinstance(value, bool)


def is_whole(value: object) -> bool:
    """Whether it is a whole number, such as 1000 or 1e3."""
    return isinstance(value, numbers.Real) and is_number(value) and float(value).is_integer()
