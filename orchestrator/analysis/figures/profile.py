"""Performance profiles: the share of runs that stay within a loss, a line a method."""

from __future__ import annotations

import itertools

import numpy as np
import pyarrow as pa
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from orchestrator.analysis.figures.board import NOTHING, board
from orchestrator.analysis.figures.looks import edge, handles, key_of, looks_of, names_of
from orchestrator.analysis.figures.style import style
from orchestrator.analysis.missing import missing_of
from orchestrator.analysis.text import wording


def profile_figure(profile: pa.Table) -> Figure:
    """`Results.profile`: the share of runs that score above each threshold, bands of 95 % over seeds."""
    rows = profile.to_pylist()
    looks = looks_of(rows)
    tasks = wording.span([row["num_tasks"] for row in rows], "task")
    least = min((row["num_seeds"] for row in rows), default=0)
    seeds = wording.replicates(least, wording.most_folds(row["num_folds"] for row in rows))
    caption = (
        f"share of runs no further behind the best method of their task than so many points; {tasks}, at least "
        f"{seeds}; the higher the better, bands are 95 % of resampled runs"
    )
    with style():
        sheet = board(
            1, title="Performance profiles", caption=caption if rows else NOTHING,
            legend=handles(looks, names_of(rows)), notes=missing_of(profile), panel=(5.6, 3.3), margins=(0.75, 0.58),
            head=0.1,
        )  # fmt: skip
        (axes,) = sheet.panels
        axes.set_visible(bool(rows))
        for key, group in itertools.groupby(sorted(rows, key=key_of), key=key_of):
            points = list(group)
            look = looks[key]
            x = 100 * np.array([point["threshold"] for point in points])
            share = np.array([point["share"] for point in points])
            if points[0]["share_low"] is not None:
                low, high = (np.array([point[name] for point in points]) for name in ("share_low", "share_high"))
                axes.fill_between(x, low, high, color=look.color, alpha=0.10, linewidth=0, step="post")
            axes.plot(
                x, share, color=look.color, linestyle=look.dashes, linewidth=1.6, marker=look.marker, markersize=5,
                markeredgecolor=edge(look), markeredgewidth=0.7, drawstyle="steps-post",
                markevery=(2 * list(looks).index(key) % 24, 24),
            )  # fmt: skip
        axes.set_ylim(-0.02, 1.02)
        axes.yaxis.set_major_formatter(PercentFormatter(1.0))
        axes.set_ylabel("runs above the threshold")
        axes.set_xlabel("score less that of the best method on the task (points)")
        axes.margins(x=0)
        return sheet.figure
