"""The forgetting matrix as a picture: what each task scores after every later one, a heat map a method."""

from __future__ import annotations

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
from orchestrator.analysis.text.forgetting import by_method, kind, task_names
from orchestrator.analysis.text.visible import visible

# Inches: of a cell, around and between the panels, above them for headline and names, below them for names of tasks.
_CELL, _LEFT, _GAP, _RIGHT, _TOP, _BOTTOM = 0.78, 0.2, 0.35, 1.0, 1.45, 0.75
_MOST_NUMBERED = 12  # tasks; the cells of more are too small for numbers
_SIZE = 8.5  # points, of names
_LEAST_REACH = 0.01  # of the colours: less than a point is never drawn as if it were much


def forgetting_figure(matrix: pa.Table, measures: pa.Table) -> Figure:
    """A panel a method: downwards the task trained last, to the right the task evaluated.

    Numbers are scores in points, mean over seeds with the s.e.m. below; colour is the change since the task was
    trained, on one scale for all panels, white where nothing has changed. `matrix` and `measures` are those of
    `SequenceResults`.
    """
    panels = by_method(matrix)
    num_tasks = max(row["after"] for rows in panels.values() for row in rows)
    cell = _CELL if num_tasks <= 8 else max(0.32, 6.3 / num_tasks)
    side = cell * num_tasks
    names = {
        method: {place: visible(name) for place, name in task_names(rows).items()} for method, rows in panels.items()
    }
    longest = max(width_of(name, _SIZE) for own in names.values() for name in own.values())
    label = min(1.75, longest + 0.15)
    shared = len({tuple(own.items()) for own in names.values()}) == 1
    lefts, place = [], _LEFT
    for number, _ in enumerate(panels):
        place += label if number == 0 or not shared else 0.0
        lefts.append(place)
        place += side + _GAP
    width, height = max(place - _GAP + _RIGHT, 6.4), _TOP + side + _BOTTOM
    reach = max(_LEAST_REACH, float(np.nanmax(np.abs(matrix["change"].to_numpy()), initial=0.0)))
    scale = ScalarMappable(Normalize(-100 * reach, 100 * reach), CHANGE)
    by = {(row["method"], row["measure"]): row for row in measures.to_pylist()}
    with style():
        figure = new_figure(width, height)
        for number, (method, rows) in enumerate(panels.items()):
            box = (lefts[number] / width, _BOTTOM / height, side / width, side / height)
            axes = figure.add_axes(box)
            _draw_cells(axes, rows, num_tasks, scale, inches=cell)
            _name_tasks(axes, names[method], cell, label if number == 0 or not shared else 0.0)
            title = f"{visible(method.replace('_', ' '))}: {kind(rows[0])}"
            axes.text(0, 1 + 0.3 / side, fitted(title, side, 10.5, "bold"), transform=axes.transAxes, fontsize=10.5,
                      fontweight="bold", color="#222222", va="bottom")  # fmt: skip
            axes.text(0, 1 + 0.1 / side, fitted(_measured(by, method), side, 9), transform=axes.transAxes, fontsize=9,
                      color="#555555", va="bottom")  # fmt: skip
        right = lefts[-1] + side
        bar = figure.add_axes(((right + 0.2) / width, _BOTTOM / height, 0.16 / width, side / height))
        figure.colorbar(scale, cax=bar)
        bar.set_ylabel("change since the task was trained (points)", labelpad=6, fontsize=9)
        bar.tick_params(length=0, labelsize=9)
        for edge in bar.spines.values():
            edge.set_visible(False)
        seeds = wording.span({row["num_seeds"] for rows in panels.values() for row in rows}, "seed")
        caption = f"score in points of the task in each column after the task of the row was trained; {seeds}"
        headline(figure, "What later tasks leave of earlier ones", fitted(caption, width - 0.3, 9))
        return figure


def _draw_cells(
    axes: Axes, rows: list[dict[str, Any]], num_tasks: int, scale: ScalarMappable, *, inches: float
) -> None:
    _, reach = scale.get_clim()
    for row in rows:
        x, y, change = row["place"] - 1, row["after"] - 1, 100 * row["change"]
        is_new = row["after"] == row["place"]
        edge = (
            {"edgecolor": "#777777", "linewidth": 1.2, "zorder": 3}
            if is_new
            else {"edgecolor": "#D9D9D9", "linewidth": 0.6}
        )
        axes.add_patch(Rectangle((x - 0.5, y - 0.5), 1, 1, facecolor=scale.to_rgba(change), **edge))
        if num_tasks > _MOST_NUMBERED:
            continue
        ink = "white" if abs(change) > 0.55 * reach else "#222222"
        size, has_spread = min(11.0, 14 * inches), row["sem"] is not None and inches > 0.55
        axes.text(x, y - (0.1 if has_spread else 0), f"{100 * row['mean']:.1f}", ha="center", va="center", fontsize=size,
                  color=ink, zorder=4)  # fmt: skip
        if has_spread:
            axes.text(x, y + 0.24, f"± {100 * row['sem']:.1f}", ha="center", va="center", fontsize=0.66 * size,
                      color=ink, zorder=4)  # fmt: skip
    axes.set(xlim=(-0.5, num_tasks - 0.5), ylim=(num_tasks - 0.5, -0.5))
    axes.grid(visible=False)
    axes.tick_params(length=0)
    for spine in axes.spines.values():
        spine.set_visible(False)


def _name_tasks(axes: Axes, names: dict[int, str], cell: float, label: float) -> None:
    """The tasks below the columns, in as many lines as they need, and where there is room before the rows."""
    places = sorted(names)
    below = [
        "\n".join(folded(names[place].replace("_", "_ "), cell - 0.06, _SIZE)[:3]).replace("_ ", "_")
        for place in places
    ]
    axes.set_xticks([place - 1 for place in places], below, fontsize=_SIZE)
    beside = [fitted(names[place], label - 0.12, _SIZE) if label else "" for place in places]
    axes.set_yticks([place - 1 for place in places], beside, fontsize=_SIZE)


def _measured(by: dict[tuple[str, str], dict[str, Any]], method: str) -> str:
    """at the end 71.2 on average, forgetting 8.3 ± 1.0; nothing where no seed is complete."""
    if (method, "average_score") not in by:
        return "not complete"
    average, forgetting = by[method, "average_score"], by[method, "forgetting"]
    spread = "" if forgetting["sem"] is None else f" ± {100 * forgetting['sem']:.1f}"
    minus = f"{100 * forgetting['mean']:.1f}".replace("-", "\N{MINUS SIGN}")
    return f"average at the end {100 * average['mean']:.1f}, forgetting {minus}{spread}"
