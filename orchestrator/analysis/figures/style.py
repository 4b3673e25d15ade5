"""What all figures look like: type, lines, headline, and how they become files."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal

import matplotlib
from matplotlib.figure import Figure

_DPI = 200

_STYLE: dict[Any, Any] = {
    "font.family": "DejaVu Sans",  # comes with matplotlib, so a figure is the same everywhere
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#555555",
    "axes.labelcolor": "#222222",
    "xtick.color": "#555555",
    "ytick.color": "#555555",
    "axes.grid": True,
    "axes.grid.axis": "y",
    "grid.color": "#E6E6E6",
    "grid.linewidth": 0.8,
    "axes.axisbelow": True,
    "legend.fontsize": 9,
    "svg.hashsalt": "adaptune",  # equal figures are equal files
}


def render(figure: Figure, kind: Literal["png", "svg"]) -> bytes:
    """The figure as a file's content: PNG at 200 dpi, or SVG with text as outlines. Equal figures, equal bytes."""
    content = io.BytesIO()
    with style():
        metadata = {"Date": None} if kind == "svg" else {"Software": None}
        figure.savefig(content, format=kind, dpi=_DPI, metadata=metadata)
    return content.getvalue()


@contextmanager
def style() -> Iterator[None]:
    with matplotlib.rc_context(_STYLE):
        yield


def new_figure(width: float, height: float) -> Figure:
    return Figure(figsize=(width, height), facecolor="white", dpi=_DPI)


def headline(figure: Figure, title: str, caption: str) -> None:
    height, left = figure.get_figheight(), 0.15 / figure.get_figwidth()
    figure.text(left, 1 - 0.12 / height, title, fontsize=13, fontweight="bold", color="#111111", va="top")
    figure.text(left, 1 - 0.37 / height, caption, fontsize=9, color="#555555", va="top")
