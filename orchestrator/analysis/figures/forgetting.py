"""The forgetting matrix as a picture: what each task scores after every later one, a heat map a method."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pyarrow as pa
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from orchestrator.analysis.figures.heatmap import CHANGE
from orchestrator.analysis.figures.style import headline, new_figure, style
from orchestrator.analysis.figures.text import fitted, folded, width_of
from orchestrator.analysis.text import wording
from orchestrator.analysis.text.forgetting import by_method, kind, points, task_names
from orchestrator.analysis.text.visible import one_line

# Inches: of a cell, around and between the panels, between them and the headline, below them for names of tasks.
_CELL, _LEFT, _GAP, _RIGHT, _TOP, _BOTTOM = 0.72, 0.2, 0.35, 1.0, 0.72, 0.62
_MOST_NUMBERED = 12  # tasks; the cells of more are too small for numbers
_SIZE = 8.5  # points, of names
_LINE = 0.17  # inches, of the words above a panel
_LEAST_REACH = 0.01  # of the colours: less than a point is never drawn as if it were much


def forgetting_figure(matrix: pa.Table, measures: pa.Table) -> Figure:
    """A panel a method: downwards the task trained last, to the right the task evaluated.

    Numbers are scores in points, mean over seeds with the s.e.m. below; colour is the change since the task was
    trained, on one scale for all panels, white where nothing has changed. `matrix` and `measures` are those of
    `SequenceResults`.
    """
    panels = by_method(matrix)
    num_tasks = max(row["after"] for rows in panels.values() for row in rows)
    cell = _CELL if num_tasks <= 8 else max(0.32, 6.0 / num_tasks)
    side = cell * num_tasks
    names = {
        method: {place: one_line(name) for place, name in task_names(rows).items()} for method, rows in panels.items()
    }
    label = min(1.75, 0.15 + max(width_of(name, _SIZE) for own in names.values() for name in own.values()))
    words = {method: folded(_words(rows, measures), side, 9) for method, rows in panels.items()}
    lines = max(map(len, words.values()))
    scale = _scale(matrix)
    top = _TOP + 0.35 + _LINE * lines
    width, height = _LEFT + label + (side + _GAP) * len(panels) - _GAP + _RIGHT, top + side + _BOTTOM
    with style():
        figure = new_figure(max(width, 6.4), height)
        width = figure.get_figwidth()
        left = _LEFT + label
        for number, (method, rows) in enumerate(panels.items()):
            axes = figure.add_axes((left / width, _BOTTOM / height, side / width, side / height))
            _draw_cells(axes, rows, num_tasks, scale, inches=cell)
            _name_tasks(axes, names[method], cell, label if number == 0 else 0.0)
            title = fitted(one_line(method.replace("_", " ")), side, 10.5, "bold")
            above = 1 + (0.14 + _LINE * lines) / side
            axes.text(0, above, title, transform=axes.transAxes, fontsize=10.5, fontweight="bold", color="#222222")
            axes.text(
                0, above - 0.06 / side, "\n".join(words[method]), transform=axes.transAxes, fontsize=9, color="#555555",
                va="top", linespacing=1.25,
            )  # fmt: skip
            left += side + _GAP
        bar = figure.add_axes(((left - _GAP + 0.2) / width, _BOTTOM / height, 0.16 / width, side / height))
        _draw_bar(figure, bar, scale, matrix)
        seeds = wording.span({row["num_seeds"] for rows in panels.values() for row in rows}, "seed")
        caption = f"scores in points of the tasks (columns) after each task was trained (rows); {seeds}"
        headline(figure, "What later tasks leave of earlier ones", fitted(caption, width - 0.3, 9))
        return figure


def _scale(matrix: pa.Table) -> ScalarMappable:
    """Equal changes are equally strong in both directions."""
    reach = 100 * max(_LEAST_REACH, float(np.abs(matrix["change"].to_numpy()).max()))
    return ScalarMappable(Normalize(-reach, reach), CHANGE)


def _draw_bar(figure: Figure, bar: Axes, scale: ScalarMappable, matrix: pa.Table) -> None:
    """What of the colours there is, no change always within."""
    figure.colorbar(scale, cax=bar)
    changes = 100 * matrix["change"].to_numpy()
    low, high = min(0.0, float(changes.min())), max(0.0, float(changes.max()))
    bar.set_ylim(*((low, high) if high - low > 100 * _LEAST_REACH else scale.get_clim()))
    bar.set_ylabel("change since trained (points)", labelpad=6, fontsize=9)
    bar.tick_params(length=0, labelsize=9)
    for edge in bar.spines.values():
        edge.set_visible(False)


def _draw_cells(
    axes: Axes, rows: list[dict[str, Any]], num_tasks: int, scale: ScalarMappable, *, inches: float
) -> None:
    _, reach = scale.get_clim()
    for row in rows:
        x, y, change = row["place"] - 1, row["after"] - 1, 100 * row["change"]
        is_new = row["after"] == row["place"]
        color, width = ("#777777", 1.2) if is_new else ("#D9D9D9", 0.6)
        cell = Rectangle((x - 0.5, y - 0.5), 1, 1, facecolor=scale.to_rgba(change), edgecolor=color, linewidth=width)
        cell.set_zorder(3 if is_new else 2)
        cell.set_clip_on(False)
        axes.add_patch(cell)
        if num_tasks > _MOST_NUMBERED:
            continue
        ink = "white" if abs(change) > 0.55 * reach else "#222222"
        size, has_spread = min(11.0, 14 * inches), row["sem"] is not None and inches > 0.55
        looks: dict[str, Any] = {"ha": "center", "va": "center", "color": ink, "zorder": 4}
        axes.text(x, y - (0.1 if has_spread else 0), f"{100 * row['mean']:.1f}", fontsize=size, **looks)
        if has_spread:
            axes.text(x, y + 0.24, f"± {100 * row['sem']:.1f}", fontsize=0.66 * size, **looks)
    axes.set(xlim=(-0.5, num_tasks - 0.5), ylim=(num_tasks - 0.5, -0.5))
    axes.grid(visible=False)
    axes.tick_params(length=0)
    for spine in axes.spines.values():
        spine.set_visible(False)


def _name_tasks(axes: Axes, names: dict[int, str], cell: float, label: float) -> None:
    """The tasks below the columns, in as many lines as they need, and where there is room before the rows."""
    places = sorted(names)
    below = ["\n".join(_broken(names[place], cell - 0.06)) for place in places]
    axes.set_xticks([place - 1 for place in places], below, fontsize=_SIZE)
    beside = [fitted(names[place], label - 0.12, _SIZE) if label else "" for place in places]
    axes.set_yticks([place - 1 for place in places], beside, fontsize=_SIZE)


def _broken(name: str, inches: float) -> list[str]:
    """A name in at most three lines, broken after underscores and slashes."""
    lines = folded(re.sub(r"(?<=[_/])(?=.)", " ", name), inches, _SIZE)
    return [re.sub(r"(?<=[_/]) ", "", line) for line in lines[:3]]


def _words(rows: list[dict[str, Any]], measures: pa.Table) -> str:
    """one model: 71.2 on average at the end, forgetting 8.3 ± 1.0; without numbers where no seed is complete."""
    found = {row["measure"]: row for row in measures.to_pylist() if row["method"] == rows[0]["method"]}
    if not found:
        return kind(rows[0])
    return f"{kind(rows[0])}: {points(found['average_score'])} at the end, forgetting {points(found['forgetting'])}"
