"""Board: a figure laid out in inches, so that headline, panels, legend and notes never meet, however many there are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from orchestrator.analysis.figures.style import new_figure
from orchestrator.analysis.figures.text import fitted, fitted_apart, folded, width_of
from orchestrator.analysis.text.visible import one_line

_EDGE = 0.15  # inches from the sheet's edge to anything
_MOST_NOTES = 8
NOTHING = "no completed trial yet"


@dataclass(frozen=True, kw_only=True)
class Board:
    """A figure and its panels, row by row. Draw it within `style.style()`."""

    figure: Figure
    panels: tuple[Axes, ...]
    across: int
    panel_width: float  # inches
    panel_height: float

    def is_lowest(self, index: int) -> bool:
        """Whether no panel is below this one."""
        return index + self.across >= len(self.panels)


def board(
    number: int,
    *,
    title: str,
    caption: str,
    legend: Sequence[Line2D] = (),
    notes: Sequence[str] = (),
    panel: tuple[float, float] = (2.5, 1.75),
    across: int | None = None,
    gaps: tuple[float, float] = (0.62, 0.36),
    margins: tuple[float, float] = (0.68, 0.52),
    head: float = 0.3,
    gutter: float = 0.0,
) -> Board:
    """A sheet for so many panels.

    All lengths are inches: `panel` is width and height of one panel's frame, `gaps` what lies between frames across
    and down, `margins` what their labels need on the left and below, `head` what a panel's own title needs, `gutter`
    what stands to the right of its frame. The legend stands to the right of the panels, which grow with it where it is
    the higher; notes (what is missing) stand below them.
    """
    across = across or (2 if number in (2, 4) else min(3, max(1, number)))
    across = min(across, max(1, number))
    down = max(1, -(-number // across))
    legend_width = max((width_of(str(handle.get_label()), 9) for handle in legend), default=0.0)
    legend_width += 0.72 if legend else 0.0
    frames_width = across * panel[0] + (across - 1) * gaps[0]
    between = (down - 1) * (gaps[1] + head)
    inner = max(down * panel[1] + between, 0.215 * len(legend) + 0.1)
    panel = (panel[0], (inner - between) / down)
    width = max(margins[0] + frames_width + gutter + _EDGE + legend_width, 4.8, 2 * _EDGE + width_of(title, 13, "bold"))
    captions = folded(one_line(caption), width - 2 * _EDGE, 9)
    told = _notes(notes, width)
    top = 0.45 + 0.165 * len(captions) + head
    foot = margins[1] + (0.08 + 0.155 * len(told) if told else 0.0)
    height = top + inner + foot
    figure = new_figure(width, height)
    panels = []
    for index in range(number):
        row, column = divmod(index, across)
        left = margins[0] + column * (panel[0] + gaps[0])
        bottom = height - top - panel[1] - row * (panel[1] + gaps[1] + head)
        panels.append(figure.add_axes((left / width, bottom / height, panel[0] / width, panel[1] / height)))
    figure.text(_EDGE / width, 1 - 0.12 / height, title, fontsize=13, fontweight="bold", color="#111111", va="top")
    figure.text(
        _EDGE / width, 1 - 0.4 / height, "\n".join(captions), fontsize=9, color="#555555", va="top", linespacing=1.3
    )
    if legend:
        corner = (margins[0] + frames_width + gutter + 0.1) / width, (height - top + 0.06) / height
        figure.legend(handles=list(legend), loc="upper left", bbox_to_anchor=corner, frameon=False, borderaxespad=0)
    if told:
        figure.text(
            _EDGE / width, 0.08 / height, "\n".join(told), fontsize=8.5, color="#8A3300", va="bottom", linespacing=1.25
        )
    return Board(figure=figure, panels=tuple(panels), across=across, panel_width=panel[0], panel_height=panel[1])


def entitle(on: Board, axes: Axes, title: str, below: str = "", *, among: Sequence[str] = ()) -> None:
    """A panel's own title, cut where the panel is narrower, and in grey what is measured.

    `among`: the titles of all panels, from which this one is told apart.
    """
    shown = fitted_apart([*among, title], on.panel_width, 9.5, "bold")[title]
    axes.set_title(shown, loc="left", fontsize=9.5, fontweight="bold", color="#222222", pad=17 if below else 6)
    if below:
        axes.text(
            0, 1 + 0.06 / on.panel_height, fitted(one_line(below), on.panel_width, 8), transform=axes.transAxes,
            fontsize=8, color="#666666", va="bottom",
        )  # fmt: skip


def _notes(notes: Sequence[str], width: float) -> list[str]:
    """As lines of the sheet; of many notes the first, and how many more there are."""
    shown = list(notes[:_MOST_NOTES])
    if len(notes) > _MOST_NOTES:
        shown.append(f"and {len(notes) - _MOST_NOTES} more, in the table")
    lines = []
    for index, note in enumerate(shown):
        text = f"{'Missing: ' if not index else ''}{one_line(note)}"
        lines += folded(text, width - 2 * _EDGE, 8.5)
    return lines
