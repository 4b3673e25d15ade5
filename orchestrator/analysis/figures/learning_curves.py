"""Validation score against epochs, a panel a task."""

from __future__ import annotations

import itertools

import numpy as np
import pyarrow as pa
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from orchestrator.analysis.figures.board import NOTHING, board, entitle
from orchestrator.analysis.figures.looks import edge, handles, key_of, looks_of, names_of
from orchestrator.analysis.figures.style import style
from orchestrator.analysis.missing import missing_of
from orchestrator.analysis.text import wording


def learning_curves_figure(curves: pa.Table) -> Figure:
    """`Results.learning_curves`: a line a method through its means over seeds, bands of one s.e.m."""
    rows = curves.to_pylist()
    tasks, looks = sorted({row["task"] for row in rows}), looks_of(rows)
    over = f"mean ± s.e.m. over {wording.over(rows)}" if rows else NOTHING
    with style():
        sheet = board(
            len(tasks),
            title="Learning curves",
            caption=f"of the configuration of each method that was chosen on validation; {over}" if rows else over,
            legend=handles(looks, names_of(rows)),
            notes=missing_of(curves),
            head=0.42,
        )
        for index, (task, axes) in enumerate(zip(tasks, sheet.panels, strict=True)):
            own = sorted((row for row in rows if row["task"] == task), key=lambda row: (*key_of(row), row["epoch"]))
            for key, group in itertools.groupby(own, key=key_of):
                points = list(group)
                x = np.array([point["epoch"] for point in points])
                y = np.array([point["validation_mean"] for point in points])
                spread = np.array([point["validation_sem"] or 0.0 for point in points])
                look = looks[key]
                axes.fill_between(x, y - spread, y + spread, color=look.color, alpha=0.13, linewidth=0)
                axes.plot(
                    x, y, color=look.color, linestyle=look.dashes, linewidth=1.5, marker=look.marker, markersize=4.5,
                    markeredgecolor=edge(look), markeredgewidth=0.6, markevery=max(1, len(x) // 8),
                )  # fmt: skip
            entitle(sheet, axes, task, f"validation {(own[0]['metric'] or 'score').replace('_', ' ')}", among=tasks)
            axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=5, min_n_ticks=1))
            axes.tick_params(labelsize=8)
            axes.margins(x=0.04, y=0.08)
            if sheet.is_lowest(index):
                axes.set_xlabel("epoch", fontsize=9)
        return sheet.figure
