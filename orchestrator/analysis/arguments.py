"""What questions are asked with: names and numbers, from whoever asks, so of any kind. Numpy's numbers are numbers."""

from __future__ import annotations

import sys
from collections.abc import Collection, Iterable
from typing import Any

import numpy as np

from trainables.faults import unknown_name


def name_faults(kind: str, name: object, known: Collection[str]) -> list[str]:
    """That a name is not among the known ones, if it is not. Whatever is no text is no known name, a list included."""
    return [] if isinstance(name, str) and name in known else [unknown_name(kind, name, known)]


def is_name(given: object, name: str) -> bool:
    """Whether it is this name. Of arrays and pandas' NA, `==` answers with no truth."""
    return isinstance(given, str) and given == name


def as_list(given: Any) -> list[Any]:
    """Several of something as a list; one thing that stands alone, such as a name, is one of them."""
    return list(given) if is_several(given) else [given]


def is_several(given: object) -> bool:
    """Whether it holds several things; a text is one, and so is an array of no dimension, which says it is iterable."""
    return isinstance(given, Iterable) and not isinstance(given, str | bytes) and getattr(given, "ndim", 1) != 0


def is_number(value: object) -> bool:
    """Whether it is a real number that a float can hold; true and false are none, fractions and decimals neither."""
    if isinstance(value, bool) or not isinstance(value, int | float | np.integer | np.floating):
        return False
    return not isinstance(value, int) or abs(value) <= sys.float_info.max


def is_whole(value: object) -> bool:
    """Whether it is a whole number, such as 1000 or 1e3."""
    return is_number(value) and float(value).is_integer()  # type: ignore[arg-type]


def flag_faults(name: str, value: object) -> list[str]:
    """That a flag is neither true nor false, if it is not."""
    return [] if isinstance(value, bool | np.bool_) else [f"{name}: must be true or false, but got {value!r}"]
