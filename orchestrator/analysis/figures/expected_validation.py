"""Expected validation performance against the budget, a panel a task."""

from __future__ import annotations

import itertools

import numpy as np
import pyarrow as pa
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from orchestrator.analysis.figures.board import NOTHING, board, entitle
from orchestrator.analysis.figures.looks import edge, handles, key_of, looks_of, names_of
from orchestrator.analysis.figures.style import style
from orchestrator.analysis.missing import missing_of
from orchestrator.analysis.text import wording


def expected_validation_figure(expected: pa.Table) -> Figure:
    """`Results.expected_validation`: the expected best of n configurations drawn at random, a line a method."""
    rows = expected.to_pylist()
    tasks, looks = sorted({row["task"] for row in rows}), looks_of(rows)
    is_wide = max((row["num_configs"] for row in rows), default=1) > 20
    with style():
        sheet = board(
            len(tasks),
            title="Expected validation performance",
            caption="expected score of the best of so many configurations, drawn at random from those that completed; "
            "compare methods where both have a value"
            if rows
            else NOTHING,
            legend=handles(looks, names_of(rows)),
            notes=missing_of(expected),
            head=0.42,
        )
        for index, (task, axes) in enumerate(zip(tasks, sheet.panels, strict=True)):
            own = sorted((row for row in rows if row["task"] == task), key=key_of)
            for key, group in itertools.groupby(own, key=key_of):
                points = list(group)
                look = looks[key]
                x = np.array([point["num_configs"] for point in points])
                axes.plot(
                    x, [point["expected_validation"] for point in points], color=look.color, linestyle=look.dashes,
                    linewidth=1.5, marker=look.marker, markersize=4.5, markeredgecolor=edge(look), markeredgewidth=0.6,
                    markevery=max(1, len(x) // 6),
                )  # fmt: skip
            if is_wide:
                axes.set_xscale("log")
                axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: wording.count_tick(value)))
            else:
                axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=6, min_n_ticks=1))
            entitle(
                sheet, axes, task, f"expected validation {(own[0]['metric'] or 'score').replace('_', ' ')}", among=tasks
            )
            axes.tick_params(labelsize=8)
            axes.margins(x=0.05, y=0.1)
            if sheet.is_lowest(index):
                axes.set_xlabel("configurations tried", fontsize=9)
        return sheet.figure
