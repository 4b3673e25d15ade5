"""Mean ranks on a line, with bars over the methods that the tasks do not tell apart: a critical-difference diagram."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pyarrow as pa
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from orchestrator.analysis.figures.board import NOTHING, board
from orchestrator.analysis.figures.looks import key_of, looks_of, names_of
from orchestrator.analysis.figures.style import style
from orchestrator.analysis.figures.text import fitted
from orchestrator.analysis.missing import missing_of
from orchestrator.analysis.reported import Method, method_names
from orchestrator.analysis.text import wording

_ROW, _BAR = 0.25, 0.13  # inches a name and a bar
_NAMES = 1.9


def critical_difference_figure(ranks: pa.Table) -> Figure:
    """`Results.ranks`: the best method on the left; a bar joins neighbours none of which is told apart from another."""
    rows = ranks.to_pylist()
    groups = groups_of(rows)
    depth = -(-len(rows) // 2)
    height = 0.3 + _BAR * len(groups) + 0.2 + _ROW * depth
    caption = NOTHING
    if rows:
        caption = (
            f"mean rank over {wording.plural(rows[0]['num_tasks'], 'task')}, 1 is best; bars join methods that exact "
            "sign-flip tests over tasks, with Holm's correction over all pairs, do not tell apart at 0.05"
        )
        if rows[0]["friedman_p"] is not None:
            caption += f"; Friedman's test: p {wording.p_value(rows[0]['friedman_p'])}"
    with style():
        sheet = board(
            1, title="Critical differences", caption=caption, notes=missing_of(ranks), panel=(4.6, max(0.6, height)),
            margins=(_NAMES + 0.25, 0.1), gutter=_NAMES + 0.15, head=0.38,
        )  # fmt: skip
        (axes,) = sheet.panels
        axes.axis("off")
        if rows:
            _draw(axes, rows, groups, height)
        return sheet.figure


def groups_of(rows: Sequence[dict[str, Any]]) -> list[tuple[int, int]]:
    """First and last place of each longest run of neighbours in the ranking among which no pair is told apart."""
    keys = [Method(row["backbone"], row["method"]) for row in rows]
    names = method_names(keys)
    alike = [set(row["not_told_apart_from"]) for row in rows]
    runs: list[tuple[int, int]] = []
    for first in range(len(rows)):
        last = first
        while last + 1 < len(rows) and all(names[keys[last + 1]] in alike[i] for i in range(first, last + 1)):
            last += 1
        if last > first and (not runs or last > runs[-1][1]):
            runs.append((first, last))
    return runs


def _draw(axes: Axes, rows: Sequence[dict[str, Any]], groups: Sequence[tuple[int, int]], height: float) -> None:
    """The scale on top, under it the bars, and under these the names, the better half on the left."""
    looks, names = looks_of(rows), names_of(rows)
    worst = len(rows)
    axes.set(xlim=(0.9, worst + 0.1), ylim=(height, 0))
    axes.hlines(0, 1, worst, color="#444444", linewidth=1.2)
    step = 1 if worst <= 12 else 2
    for rank in range(1, worst + 1, step):
        axes.vlines(rank, -0.06, 0.06, color="#444444", linewidth=1.0, clip_on=False)
        axes.text(rank, -0.1, str(rank), ha="center", va="bottom", fontsize=8.5, color="#444444")
    for place, (first, last) in enumerate(groups):
        y = 0.22 + _BAR * place
        ends = rows[first]["mean_rank"] - 0.06, rows[last]["mean_rank"] + 0.06
        axes.hlines(y, *ends, color="#666666", linewidth=4, capstyle="butt", zorder=3)
    top = 0.3 + _BAR * len(groups) + 0.2
    better = -(-len(rows) // 2)
    for place, row in enumerate(rows):
        look, x = looks[key_of(row)], row["mean_rank"]
        is_left = place < better
        y = top + _ROW * (place if is_left else len(rows) - 1 - place)
        side = 0.9 if is_left else worst + 0.1
        axes.plot([x, x, side], [0, y, y], color=look.color, linewidth=1.1, clip_on=False, zorder=2)
        axes.plot(
            [x], [0], marker=look.marker, color=look.color, markersize=6, markeredgecolor="white", clip_on=False,
            zorder=4,
        )  # fmt: skip
        shown = f"{fitted(names[key_of(row)], _NAMES - 0.4, 9)}  {x:.2f}"
        axes.annotate(
            shown, (side, y), xytext=(-5 if is_left else 5, 0), textcoords="offset points",
            ha="right" if is_left else "left", va="center", fontsize=9, color="#222222", annotation_clip=False,
        )  # fmt: skip
