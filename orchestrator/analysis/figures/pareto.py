"""Score against cost with the Pareto front, a panel a task."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pyarrow as pa
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, NullFormatter, NullLocator

from orchestrator.analysis.configurations import higher_is_better
from orchestrator.analysis.figures.board import NOTHING, board, entitle
from orchestrator.analysis.figures.looks import edge, handles, key_of, looks_of, names_of
from orchestrator.analysis.figures.style import style
from orchestrator.analysis.missing import missing_of
from orchestrator.analysis.text import wording

_COSTS = {
    "trained_params": "trained parameters",
    "trained_params_without_head": "trained parameters (no head)",
    "total_params": "parameters of the model",
    "duration_s": "seconds a trial",
    "latency_ms": "milliseconds a text",
    "ms_per_example": "milliseconds a text, of 64 at once",
}

_MOST_DECADES = 4  # with a tick, beside 0


def pareto_figure(trade_off: pa.Table) -> Figure:
    """`Results.trade_off`: every configuration as a dot, strong where it is on the front, which a line follows."""
    rows = trade_off.to_pylist()
    tasks, looks = sorted({row["task"] for row in rows}), looks_of(rows)
    cost = _COSTS[rows[0]["cost_name"]] if rows else "cost"
    with style():
        sheet = board(
            len(tasks),
            title=f"What is worth its {cost}",
            caption="mean validation score of every configuration; no other beats those on the line at the same or a "
            "lower cost. Differences within the noise between seeds count too"
            if rows
            else NOTHING,
            legend=handles(looks, names_of(rows)),
            notes=missing_of(trade_off),
            head=0.42,
        )
        for index, (task, axes) in enumerate(zip(tasks, sheet.panels, strict=True)):
            own = [row for row in rows if row["task"] == task]
            for key, look in looks.items():
                for is_on in (False, True):
                    dots = [row for row in own if key_of(row) == key and row["is_on_front"] == is_on]
                    axes.plot(
                        [row["cost"] for row in dots], [row["validation_mean"] for row in dots], linestyle="none",
                        marker=look.marker, color=look.color, markersize=6 if is_on else 3.5,
                        alpha=1.0 if is_on else 0.35, zorder=4 if is_on else 2,
                        markeredgecolor=edge(look) if is_on else look.color, markeredgewidth=0.6,
                    )  # fmt: skip
            front = sorted((row["cost"], row["validation_mean"]) for row in own if row["is_on_front"])
            if front:
                x, y = np.array(front).T
                axes.step([*x, max(row["cost"] for row in own)], [*y, y[-1]], where="post", color="#777777", zorder=3)
            _cost_axis(axes, [row["cost"] for row in own])
            axes.margins(x=0.06, y=0.1)
            better = "" if higher_is_better(own[0]["metric"]) else ", lower is better"
            entitle(
                sheet, axes, task, f"validation {(own[0]['metric'] or 'score').replace('_', ' ')}{better}", among=tasks
            )
            axes.tick_params(labelsize=8)
            if sheet.is_lowest(index):
                axes.set_xlabel(cost, fontsize=9)
        return sheet.figure


def _cost_axis(axes: Axes, costs: Sequence[float]) -> None:
    """A log axis; where something costs nothing, as a head alone does here, 0 stands left of its decades."""
    if min(costs) > 0:
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(numticks=5))
    else:
        positive = [cost for cost in costs if cost > 0] or [1.0]
        low, high = math.floor(math.log10(min(positive))), math.floor(math.log10(max(positive)))
        axes.set_xscale("symlog", linthresh=10.0**low, linscale=0.5)
        decades = range(low, high + 1, max(1, -(-(high + 1 - low) // _MOST_DECADES)))
        axes.xaxis.set_major_locator(FixedLocator([0.0, *(10.0**decade for decade in decades if any(costs))]))
        axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: wording.count_tick(value)))
    axes.xaxis.set_minor_formatter(NullFormatter())
