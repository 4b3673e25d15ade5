"""The look of each method on the page: one colour and one shape throughout, in light and in dark.

Okabe and Ito's colours, which stay apart under every common colour blindness, and three more. The four methods of the
paper have its own, as in the figures.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

_PAPER = {
    "adapter": ("#C24F00", "#FF9A57", "circle"),
    "top_layers": ("#0072B2", "#56B4E9", "square"),
    "layernorm": ("#007A59", "#2CC79A", "triangle-up"),
    "full_finetuning": ("#222222", "#E6E8EB", "diamond"),
}
_OTHERS = (
    ("#A8508A", "#E39AC7", "triangle-down"),
    ("#8C6D00", "#E6C229", "cross"),
    ("#5B4BB5", "#A99BFF", "triangle-right"),
    ("#4D7C0F", "#A3D65C", "square"),
    ("#B3261E", "#FF8A80", "triangle-left"),
    ("#5F6670", "#9AA3AD", "circle"),
    ("#00757F", "#4DD0DB", "diamond"),
    ("#7A4B2A", "#C79A78", "triangle-up"),
)
_SHAPES = ("circle", "square", "diamond", "cross", "triangle-up", "triangle-down", "triangle-right", "triangle-left")

# Of single trials, whatever their method: these read on white and on black.
CURVE_COLOURS = ("#2B8FD6", "#E0701A", "#1FA37C", "#C766A5", "#B0901A", "#7E6FE0", "#D9534A", "#7A858F")


@dataclass(frozen=True, kw_only=True)
class Look:
    light: str
    dark: str
    shape: str


def looks(methods: Iterable[str]) -> dict[str, Look]:
    """A look for each of the methods. More than there are colours share those, each with a shape of its own."""
    known = {method: _PAPER[method] for method in sorted(set(methods)) if method in _PAPER}
    for number, method in enumerate(sorted(set(methods) - set(_PAPER))):
        light, dark, shape = _OTHERS[number % len(_OTHERS)]
        known[method] = (light, dark, turned(shape, number // len(_OTHERS)))
    return {method: Look(light=light, dark=dark, shape=shape) for method, (light, dark, shape) in sorted(known.items())}


def turned(shape: str, times: int) -> str:
    """Another shape for what has the same colour: a method on a second backbone, a ninth colour's."""
    return _SHAPES[(_SHAPES.index(shape) + times) % len(_SHAPES)]
