"""The colour, marker and dashes of each method, the same in all figures that show the same backbones.

No two methods share a marker, so that they stay apart in print too. A method keeps its marker and its hue on every
backbone; dashes and shades tell backbones apart.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from matplotlib.colors import to_hex, to_rgb
from matplotlib.lines import Line2D

from orchestrator.analysis.palette import KNOWN, REFERENCE
from orchestrator.analysis.text import wording
from orchestrator.analysis.text.visible import one_line
from orchestrator.analysis.text.visible import shortened as told_apart
from orchestrator.spec.backbones import apart

Row = Mapping[str, Any]
Dashes = Literal["-", "--", ":", "-."]
Key = tuple[str, str]  # method and backbone

_MARKERS = {
    "adapter": "o",
    "top_layers": "s",
    "layernorm": "^",
    "full_finetuning": "D",
    "lora": "v",
    "bitfit": "p",
    "linear_probe": "d",
    "feature_based": "<",
    "pals": ">",
    "adapterdrop": "X",
    "adapter_fusion": "P",
    "peft": "*",
    "no_bert": "h",
}
_KNOWN = {method: (colours[0], _MARKERS.get(method, "8")) for method, colours in KNOWN.items()}
# Others take, in the order of their names, what the methods beside them leave.
_MORE_MARKERS = ("8", "H", "1", "2", "3", "4", "+", "x")
_SHADES = ((1.0, 0.0), (1.0, 0.45), (0.0, 0.45), (1.0, 0.65))  # white or black, and how much of it; one a backbone
_DASHES: tuple[Dashes, ...] = ("-", "--", ":", "-.")  # one a backbone


@dataclass(frozen=True, kw_only=True)
class Look:
    color: str
    marker: str
    dashes: Dashes


def key_of(row: Row) -> Key:
    return row["method"], row["backbone"]


def looks_of(rows: Iterable[Row]) -> dict[Key, Look]:
    """The look of each method and backbone among the rows, in their order."""
    keys = sorted({key_of(row) for row in rows})
    backbones = sorted({backbone for _, backbone in keys})
    here = {method for method, _ in keys}
    others = sorted(here - set(_KNOWN))
    free = [look for method, look in _KNOWN.items() if method not in here and method != REFERENCE]
    colors = [color for color, _ in (free or list(_KNOWN.values()))]
    spare = [(color, marker) for color, marker in zip(itertools.cycle(colors), _MORE_MARKERS, strict=False)]
    chosen = _KNOWN | dict(zip(others, itertools.chain(free, itertools.cycle(spare)), strict=False))
    return {
        (method, backbone): Look(
            color=_shade(chosen[method][0], backbones.index(backbone)),
            marker=chosen[method][1],
            dashes=_DASHES[backbones.index(backbone) % len(_DASHES)],
        )
        for method, backbone in keys
    }


def _shade(color: str, place: int) -> str:
    """A method's colour on the first backbone as it is, on others lighter and darker by turns."""
    towards, share = _SHADES[place % len(_SHADES)]
    mixed = (1 - share) * np.array(to_rgb(color)) + share * towards
    return to_hex(tuple(mixed))


def name_of(row: Row, *, backbones: Mapping[str, str]) -> str:
    """How a figure calls the method of a row; see `wording.method`."""
    name, own = wording.method(row, backbones={}).replace("_", " "), row["backbone"]
    return one_line(f"{name} on {backbones[own]}" if backbones else name)


def names_of(rows: Sequence[Row]) -> dict[Key, str]:
    """How a figure calls each method among the rows: with its backbone where there are several."""
    backbones = apart(row["backbone"] for row in rows)
    return {key_of(row): name_of(row, backbones=backbones) for row in rows}


def handles(looks: Mapping[Key, Look], names: Mapping[Key, str], *, most: int = 34) -> list[Line2D]:
    """What a legend shows, an entry a method, names of more than `most` characters shortened."""
    short = told_apart(names.values(), most)
    return [
        Line2D(
            [], [], color=look.color, linestyle=look.dashes, linewidth=1.8, marker=look.marker, markersize=6,
            markeredgecolor=edge(look), label=short[names[key]],
        )
        for key, look in looks.items()
    ]  # fmt: skip


def edge(look: Look) -> str:
    """The colour of a marker's edge: white, or its own of strokes and of a star's thin points."""
    return look.color if look.marker in "1234+x*" else "white"
