"""Words that fit where a figure has room for them."""

from __future__ import annotations

import textwrap
from functools import lru_cache

from matplotlib.font_manager import FontProperties
from matplotlib.textpath import TextPath

ELLIPSIS = "\N{HORIZONTAL ELLIPSIS}"


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


@lru_cache(maxsize=4096)
def width_of(text: str, size: float, weight: str = "normal") -> float:
    """Inches that a line takes at a size in points."""
    if not text.strip():
        return 0.0
    font = FontProperties(family="DejaVu Sans", size=size, weight=weight)
    return float(TextPath((0, 0), text, prop=font, usetex=False).get_extents().width) / 72


def fitted(text: str, inches: float, size: float, weight: str = "normal") -> str:
    """Shortened in the middle until it is no wider than so many inches."""
    most = len(text)
    while most > 3 and width_of(shortened(text, most), size, weight) > inches:
        most -= 1
    return shortened(text, most)


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
