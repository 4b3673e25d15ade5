"""The colours of each method, the same on the page, in light and in dark, and in all figures.

Okabe and Ito's colours, darkened until they read on white, and further ones between them; no two are told apart by
red and green alone. Methods that come with adaptune have each their own, so that they keep it without the others.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

# In light, in dark, and the shape on the page.
KNOWN = {
    "adapter": ("#C24F00", "#FF9A57", "circle"),
    "top_layers": ("#0072B2", "#56B4E9", "square"),
    "layernorm": ("#007A59", "#2CC79A", "triangle-up"),
    "full_finetuning": ("#222222", "#E6E8EB", "diamond"),
    "lora": ("#A8508A", "#E39AC7", "triangle-down"),
    "linear_probe": ("#8C6D00", "#E6C229", "cross"),
    "pals": ("#5B4BB5", "#A99BFF", "triangle-right"),
    "adapter_fusion": ("#4D7C0F", "#A3D65C", "square"),
    "adapterdrop": ("#B3261E", "#FF8A80", "triangle-left"),
    "no_bert": ("#5F6670", "#9AA3AD", "circle"),
    "bitfit": ("#00757F", "#4DD0DB", "diamond"),
    "feature_based": ("#7A4B2A", "#C79A78", "triangle-up"),
    "peft": ("#7D3C98", "#C39BD3", "triangle-down"),
}
REFERENCE = "full_finetuning"  # whose look nobody else has
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
    here = set(methods)
    known = {method: KNOWN[method] for method in here if method in KNOWN}
    left = [look for method, look in KNOWN.items() if method not in here and method != REFERENCE]
    left = left or [look for method, look in KNOWN.items() if method != REFERENCE]
    for number, method in enumerate(sorted(here - set(KNOWN))):
        light, dark, shape = left[number % len(left)]
        known[method] = (light, dark, turned(shape, number // len(left)))
    return {method: Look(light=light, dark=dark, shape=shape) for method, (light, dark, shape) in sorted(known.items())}


def turned(shape: str, times: int) -> str:
    """Another shape for what has the same colour: a method on a second backbone, a ninth colour's."""
    return _SHAPES[(_SHAPES.index(shape) + times) % len(_SHAPES)]
