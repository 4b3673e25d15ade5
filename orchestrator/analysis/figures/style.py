"""What all figures look like: type, lines, headline, and how they become files."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal

import matplotlib
from matplotlib.figure import Figure

from orchestrator.analysis.figures.text import without_warnings_of_letters

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
    "text.parse_math": False,  # a name with two dollar signs is a name
    "pdf.fonttype": 42,  # text in a PDF stays text: it can be searched, and journals ask for it
    "svg.hashsalt": "adaptune",  # equal figures are equal files
}


Kind = Literal["png", "svg", "pdf"]
KINDS: tuple[Kind, ...] = ("pdf", "png", "svg")
_UNNAMED: dict[Kind, dict[str, None]] = {
    "png": {"Software": None},
    "svg": {"Date": None},
    "pdf": {"CreationDate": None, "Creator": None, "Producer": None},
}


def render(figure: Figure, kind: Kind) -> bytes:
    """The figure as a file's content. Equal figures, equal bytes.

    PNG at 200 dpi, SVG with text as outlines, or PDF with text as text.
    """
    content = io.BytesIO()
    with style():
        figure.savefig(content, format=kind, dpi=_DPI, metadata=_UNNAMED[kind])
    return content.getvalue()


@contextmanager
def style() -> Iterator[None]:
    with matplotlib.rc_context(_STYLE), without_warnings_of_letters():
        yield


def new_figure(width: float, height: float) -> Figure:
    return Figure(figsize=(width, height), facecolor="white", dpi=_DPI)


def headline(figure: Figure, title: str, caption: str) -> None:
    height, left = figure.get_figheight(), 0.15 / figure.get_figwidth()
    figure.text(left, 1 - 0.12 / height, title, fontsize=13, fontweight="bold", color="#111111", va="top")
    figure.text(left, 1 - 0.37 / height, caption, fontsize=9, color="#555555", va="top")
