"""Every configuration as a line through its hyperparameters to its score: parallel coordinates."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator

from orchestrator.analysis.figures.board import NOTHING, board
from orchestrator.analysis.figures.looks import handles, key_of, looks_of, names_of
from orchestrator.analysis.figures.robustness import is_logarithmic, is_numeric, tick
from orchestrator.analysis.figures.style import style
from orchestrator.analysis.figures.text import shortened, wrapped
from orchestrator.analysis.missing import missing_of
from orchestrator.analysis.questions.tried import searched_of
from orchestrator.analysis.text import wording
from orchestrator.analysis.text.visible import one_line

_APART = 1.35  # inches between two axes
_NOT_APPLICABLE = wording.UNKNOWN  # where a method does not have a hyperparameter
_MOST_TICKS = 7


def parallel_coordinates_figure(tried: pa.Table) -> Figure:
    """`Results.tried`: axes are the method, each searched hyperparameter, the trained parameters and the score.

    The last axis is how far a configuration is behind the best of its task, in points. The better it is, the
    stronger its line. What a method does not have stands at the foot of its axis, as a dash.
    """
    rows, names = tried.to_pylist(), searched_of(tried)
    looks, called = looks_of(rows), names_of(rows)
    columns: list[tuple[str, list[Any]]] = []
    if rows:
        columns.append(("method", [called[key_of(row)] for row in rows]))
        columns += [(name.replace("_", " "), [row[name] for row in rows]) for name in names]
        columns.append(("trained parameters", [row["trained_params"] for row in rows]))
        columns.append(("behind the best (points)", [-100 * row["loss_to_best"] for row in rows]))
    tasks = len({row["task"] for row in rows})
    longest = max((len(name) for name in called.values()), default=0)
    with style():
        sheet = board(
            1 if rows else 0,
            title="From hyperparameters to scores",
            caption=f"a line a configuration, {wording.plural(len(rows), 'configuration')} on "
            f"{wording.plural(tasks, 'task')}; the stronger, the closer to the best of its task on validation"
            if rows
            else NOTHING,
            legend=handles(looks, called),
            notes=missing_of(tried),
            panel=(max(3.2, _APART * (len(columns) - 1)), max(2.6, 0.24 * len(looks))),
            margins=(0.35 + 0.075 * min(longest, 22), 0.5),
            gutter=0.45,
        )
        if rows:
            _draw(sheet.panels[0], rows, columns, looks)
        return sheet.figure


def _draw(axes: Axes, rows: Sequence[dict[str, Any]], columns: Sequence[tuple[str, list[Any]]], looks: Any) -> None:
    last = len(columns) - 1
    places = [_scale(axes, index, values, is_last=index == last) for index, (_, values) in enumerate(columns)]
    heights = np.array(places).T  # (configurations, axes)
    behind = np.array([row["loss_to_best"] for row in rows])
    order = np.argsort(-behind, kind="stable")  # the best on top
    share = 1 - np.argsort(np.argsort(behind, kind="stable"), kind="stable") / max(1, len(rows) - 1)
    spread = np.random.default_rng(0).uniform(-0.012, 0.012, heights.shape)  # so that equal lines are seen to be many
    spread[:, -2:] = 0
    x = np.arange(len(columns))
    lines = [np.column_stack([x, heights[row] + spread[row]]) for row in order]
    colors = [looks[key_of(rows[row])].color for row in order]
    crowd = min(1.0, 60 / len(rows))
    alphas = [0.08 + 0.12 * crowd + (0.05 + 0.75 * max(crowd, 0.6)) * share[row] ** 4 for row in order]
    axes.add_collection(LineCollection(lines, colors=colors, alpha=alphas, linewidths=[0.6 + share[r] for r in order]))
    axes.set(xlim=(0, max(1, len(columns) - 1)), ylim=(-0.12, 1.05))
    axes.grid(visible=False)
    axes.set_yticks([])
    axes.spines["left"].set_visible(False)
    axes.spines["bottom"].set_visible(False)
    axes.set_xticks(x, [wrapped(one_line(name), 14, 2) for name, _ in columns], fontsize=8.5)
    axes.tick_params(length=0, pad=6)
    for index in range(len(columns)):
        axes.axvline(index, color="#777777", linewidth=0.9, zorder=3, ymin=0.0, ymax=1.0)


def _scale(axes: Axes, index: int, values: Sequence[Any], *, is_last: bool) -> list[float]:
    """Heights between 0 and 1 of an axis' values, whose ticks it writes; what does not apply is below."""
    known = sorted({value for value in values if value is not None})
    if known and is_numeric(known):
        height, ticks = _numbers(known)
    else:
        height = {value: place / max(1, len(known) - 1) for place, value in enumerate(reversed(known))}
        ticks = [(height[value], shortened(one_line(wording.cell(value)), 22 if index == 0 else 9)) for value in known]
    if any(value is None for value in values):
        ticks = [(-0.1, _NOT_APPLICABLE), *ticks]
    side = 1 if is_last else -1
    for y, text in ticks:
        axes.text(
            index + side * 0.045, y, text, ha="left" if is_last else "right", va="center", fontsize=7.5,
            color="#333333", zorder=5, bbox={"facecolor": "white", "alpha": 0.75, "edgecolor": "none", "pad": 0.6},
        )  # fmt: skip
    return [-0.1 if value is None else height[value] for value in values]


def _numbers(known: list[Any]) -> tuple[dict[Any, float], list[tuple[float, str]]]:
    """The height of each value and the ticks: the values themselves where they are few, round numbers else."""
    is_log = is_logarithmic(known)

    def at(value: float) -> float:
        return float(np.log(value)) if is_log else float(value)

    low, high = at(known[0]), at(known[-1])

    def height(value: float) -> float:
        return (at(value) - low) / (high - low) if high > low else 0.5

    if len(known) <= _MOST_TICKS:
        marked = known
    else:
        locator = LogLocator() if is_log else MaxNLocator(nbins=5, steps=[1, 2, 5, 10])
        marked = [value for value in locator.tick_values(known[0], known[-1]) if known[0] <= value <= known[-1]]
    ticks = [(height(value), tick(float(value)).replace("-", "\N{MINUS SIGN}")) for value in marked]
    return {value: height(value) for value in known}, _spread(ticks)


def _spread(ticks: list[tuple[float, str]], apart: float = 0.085) -> list[tuple[float, str]]:
    """Those ticks that stand far enough from each other, both ends always among them."""
    if len(ticks) < 3:
        return ticks
    kept = [ticks[0]]
    for height, text in ticks[1:-1]:
        if height - kept[-1][0] >= apart and ticks[-1][0] - height >= apart:
            kept.append((height, text))
    return [*kept, ticks[-1]]
