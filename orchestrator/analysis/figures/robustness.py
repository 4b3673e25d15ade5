"""The best score at each value of one hyperparameter, in the manner of Figure 7 of Houlsby et al. 2019."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pyarrow as pa
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from orchestrator.analysis.figures.board import NOTHING, board, entitle
from orchestrator.analysis.figures.looks import edge, handles, key_of, looks_of, names_of
from orchestrator.analysis.figures.style import style
from orchestrator.analysis.figures.text import shortened
from orchestrator.analysis.missing import missing_of
from orchestrator.analysis.statistics.importance import spans_a_decade
from orchestrator.analysis.text import wording
from orchestrator.analysis.text.visible import one_line

_MOST_TICKS = 5


def robustness_figure(table: pa.Table) -> Figure:
    """`Results.robustness`: a panel a task, a line a method through the best score at each value, bars of one s.e.m."""
    rows = table.to_pylist()
    tasks, looks = sorted({row["task"] for row in rows}), looks_of(rows)
    name = rows[0]["hyperparameter"].replace("_", " ") if rows else "a hyperparameter"
    seeds = wording.over(rows)
    values = sorted({row["value"] for row in rows}, key=lambda value: (isinstance(value, str), value))
    with style():
        sheet = board(
            len(tasks),
            title=f"How much the {name} matters",
            caption=f"best configuration at each value, chosen on validation; mean ± s.e.m. over {seeds}"
            if rows
            else NOTHING,
            legend=handles(looks, names_of(rows)),
            notes=missing_of(table),
            head=0.42,
        )
        for index, (task, axes) in enumerate(zip(tasks, sheet.panels, strict=True)):
            own = sorted((row for row in rows if row["task"] == task), key=key_of)
            for key, group in itertools.groupby(own, key=key_of):
                points = sorted(group, key=lambda row: values.index(row["value"]))
                x = [_position(point["value"], values) for point in points]
                y = np.array([point["validation_mean"] for point in points])
                spread = np.array([point["validation_sem"] or 0.0 for point in points])
                look = looks[key]
                axes.vlines(x, y - spread, y + spread, color=look.color, linewidth=1.1)
                axes.plot(
                    x, y, color=look.color, linestyle=look.dashes, linewidth=1.5, marker=look.marker, markersize=5,
                    markeredgecolor=edge(look), markeredgewidth=0.7,
                )  # fmt: skip
            entitle(sheet, axes, task, f"validation {(own[0]['metric'] or 'score').replace('_', ' ')}", among=tasks)
            value_axis(axes, values)
            axes.tick_params(labelsize=8)
            axes.margins(y=0.1)
            if sheet.is_lowest(index):
                axes.set_xlabel(name, fontsize=9)
        return sheet.figure


def is_numeric(values: list[Any]) -> bool:
    """Whether all are numbers; flags are not."""
    return all(isinstance(value, int | float) and not isinstance(value, bool) for value in values)


def is_logarithmic(values: list[Any]) -> bool:
    """Whether values are better told apart on a log axis: positive, and the largest at least ten times the smallest."""
    return is_numeric(values) and bool(values) and spans_a_decade(values)


def value_axis(axes: Axes, values: list[Any]) -> None:
    """An x axis of the values tried: logarithmic where they span a decade, places side by side where they are words."""
    if not is_numeric(values):
        axes.set_xticks(range(len(values)), [shortened(one_line(wording.cell(value)), 10) for value in values])
        axes.set_xlim(-0.5, len(values) - 0.5)
        return
    if is_logarithmic(values):
        axes.set_xscale("log")
        axes.set_xlim(min(values) / 1.4, max(values) * 1.4)
    elif values:
        room = 0.08 * (max(values) - min(values)) or 0.1 * abs(values[0]) or 1.0
        axes.set_xlim(min(values) - room, max(values) + room)
    step = max(1, -(-len(values) // _MOST_TICKS))
    axes.xaxis.set_major_locator(FixedLocator([float(value) for value in values[::step]]))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: tick(value)))


def tick(value: float) -> str:
    """A value of a hyperparameter on an axis: 3e-4, 0.01, 64, 10k."""
    if value and abs(value) < 0.01:
        mantissa, exponent = f"{value:.1e}".split("e")
        return f"{mantissa.removesuffix('.0')}e{int(exponent)}"
    if value < 1000:
        return f"{value + 0.0:.4g}"
    exact = wording.count_tick(value)
    return exact if len(exact) <= 4 else wording.count(value)


def _position(value: Any, values: list[Any]) -> float:
    return value if is_numeric(values) else values.index(value)
