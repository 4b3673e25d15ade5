"""Words that fit where a figure has room for them."""

from __future__ import annotations

import textwrap
import warnings
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache

from matplotlib.font_manager import FontProperties, findfont, get_font
from matplotlib.ft2font import LoadFlags

from orchestrator.analysis.text.visible import one_line
from orchestrator.analysis.text.visible import shortened as told_apart

ELLIPSIS = "\N{HORIZONTAL ELLIPSIS}"
_DOTS = 72  # an inch, in which widths are measured


def shortened(text: str, most: int) -> str:
    """At most so many characters; what is cut is cut from the middle, since names differ at both ends."""
    if len(text) <= most:
        return text
    head = (most - 1) // 2
    return f"{text[:head]}{ELLIPSIS}{text[len(text) - (most - 1 - head) :]}"


def wrapped(text: str, width: int, most_lines: int = 2) -> str:
    """In lines of at most so many characters, broken at spaces where there are any; cut in the middle to fit."""
    text = shortened(text, width * most_lines)
    lines = textwrap.wrap(text, width, break_on_hyphens=False) or [""]
    if len(lines) > most_lines:
        lines = textwrap.wrap(shortened(text, width * (most_lines - 1)), width, break_on_hyphens=False)
    return "\n".join(lines[:most_lines])


@contextmanager
def without_warnings_of_letters() -> Iterator[None]:
    """A letter that the font lacks is drawn as a box, which is seen; matplotlib warns of it each time it is drawn."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from", category=UserWarning)
        yield


@lru_cache(maxsize=4096)
def width_of(text: str, size: float, weight: str = "normal") -> float:
    """Inches that a line takes at a size in points."""
    if not text.strip():
        return 0.0
    font = get_font(findfont(FontProperties(family="DejaVu Sans", weight=weight)))
    font.set_size(size, _DOTS)
    with without_warnings_of_letters():
        font.set_text(text, 0.0, flags=LoadFlags.NO_HINTING)
    return float(font.get_width_height()[0]) / 64 / _DOTS  # in 64ths of a dot


def fitted(text: str, inches: float, size: float, weight: str = "normal") -> str:
    """Shortened in the middle until it is no wider than so many inches."""
    if width_of(text, size, weight) <= inches:
        return text
    most = 3 + bisect_left(range(4, len(text)), True, key=lambda n: width_of(shortened(text, n), size, weight) > inches)
    return shortened(text, most)


def fitted_apart(names: Sequence[str], inches: float, size: float, weight: str = "normal") -> dict[str, str]:
    """Of each name what of it is no wider than so many inches; those that would read the same are told apart."""
    lines = {name: one_line(name) for name in names}
    wide = [name for name, line in lines.items() if width_of(line, size, weight) > inches]
    for most in range(max((len(lines[name]) for name in wide), default=0) - 1, 3, -1):
        short = told_apart(wide, most)
        if all(width_of(text, size, weight) <= inches for text in short.values()):
            return lines | short
    return {name: fitted(line, inches, size, weight) for name, line in lines.items()}


def folded(text: str, inches: float, size: float) -> list[str]:
    """In lines no wider than so many inches, broken at spaces; a word that is wider than all of them is shortened."""
    lines: list[str] = []
    for word in text.split():
        joined = f"{lines[-1]} {word}" if lines else word
        if lines and width_of(joined, size) <= inches:
            lines[-1] = joined
        else:
            lines.append(fitted(word, inches, size))
    return lines or [""]
