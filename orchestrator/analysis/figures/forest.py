"""Forest plot: how much better or worse each method is than the reference, on each task and over all."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from orchestrator.analysis.figures.board import NOTHING, board
from orchestrator.analysis.figures.looks import Look, edge, key_of, looks_of, names_of
from orchestrator.analysis.figures.style import style
from orchestrator.analysis.figures.text import fitted, fitted_apart
from orchestrator.analysis.missing import missing_of
from orchestrator.analysis.text import wording

_ROW = 0.185  # inches a line
_NAMES = 2.0  # inches for the names of tasks and methods, and on the other side for numbers


def forest_figure(differences: pa.Table) -> Figure:
    """`Results.paired_differences`: dots are differences in points, bars their 95 % intervals.

    One method: its tasks, and the mean over them as a diamond. Several: a block for each, which has the mean in the
    method's colour and the tasks in grey behind it.
    """
    rows = differences.to_pylist()
    overall = sorted((row for row in rows if row["task"] is None), key=lambda row: -row["difference"])
    reference = rows[0]["reference"].replace("_", " ") if rows else ""
    looks, names = looks_of(rows), names_of(rows)
    is_single = len(overall) == 1
    tasks = fitted_apart([row["task"] for row in rows if row["task"] is not None], _NAMES, 8.5)
    lines: list[dict[str, Any]] = []
    for one in overall:
        if is_single:
            lines += [row for row in rows if row["task"] is not None]
        lines.append(one)
    spacing = _ROW if is_single else 0.34
    height = max(0.8, spacing * max(1, len(lines)))
    caption = (
        f"difference to {reference} in points, right is better; dots are tasks (95 % over seeds), diamonds their mean "
        "(95 % over tasks); p by sign flips, Holm's correction over methods"
        if is_single
        else f"difference to {reference} in points, right is better; diamonds are means over tasks with 95 % intervals "
        "over tasks, grey dots the tasks below it; p by sign flips, Holm's correction over methods"
    )
    with style():
        sheet = board(
            1, title="Differences to the reference", caption=caption if rows else NOTHING,
            notes=missing_of(differences), panel=(4.2, height), margins=(_NAMES + 0.2, 0.52), gutter=_NAMES, head=0.12,
        )  # fmt: skip
        (axes,) = sheet.panels
        _prepare(axes, len(lines), reference)
        axes.set_visible(bool(rows))
        for place, row in enumerate(lines):
            y = len(lines) - 1 - place
            look = looks[key_of(row)]
            if row["task"] is None and not is_single:
                own = [each for each in rows if each["task"] is not None and key_of(each) == key_of(row)]
                axes.plot(
                    [100 * each["difference"] for each in own], [y - 0.3] * len(own), linestyle="none", marker="o",
                    markersize=4, color="#9A9A9A", alpha=0.55, markeredgewidth=0, zorder=2,
                )  # fmt: skip
            name = tasks[row["task"]] if row["task"] is not None else names[key_of(row)]
            name = f"mean of {name}" if row["task"] is None and is_single else name
            _draw_row(axes, row, y, look, name, is_mean=row["task"] is None)
        return sheet.figure


def _prepare(axes: Axes, number: int, reference: str) -> None:
    axes.axvline(0, color="#999999", linewidth=0.8, linestyle=(0, (4, 3)), zorder=1)
    axes.set_ylim(-0.7, max(1, number) - 0.3)
    axes.set_yticks([])
    axes.spines["left"].set_visible(False)
    axes.grid(visible=False)
    axes.grid(visible=True, axis="x")
    axes.margins(x=0.06)
    if reference:
        axes.set_xlabel(f"points better than {reference}", fontsize=9)


def _draw_row(axes: Axes, row: dict[str, Any], y: float, look: Look, name: str, *, is_mean: bool) -> None:
    value = 100 * row["difference"]
    low, high = (None if row[key] is None else 100 * row[key] for key in ("low", "high"))
    color = look.color
    if low is not None and high is not None:
        axes.hlines(y, low, high, color=color, linewidth=2.0 if is_mean else 1.1, zorder=3)
    axes.plot(
        [value], [y], linestyle="none", marker="D" if is_mean else look.marker, color=color,
        markersize=7 if is_mean else 5, markeredgecolor="white" if is_mean else edge(look), zorder=4,
    )  # fmt: skip
    weight = "bold" if is_mean else "normal"
    axes.text(
        -0.02, y, fitted(name, _NAMES, 8.5, weight), transform=axes.get_yaxis_transform(), ha="right", va="center",
        fontsize=8.5, fontweight=weight, color="#222222",
    )  # fmt: skip
    spread = "" if low is None or high is None else f" [{_points(low)}, {_points(high)}]"
    p_value = f"  p {wording.p_value(row['p_holm'])}" if row["p_holm"] is not None and row["num_tasks"] > 1 else ""
    axes.text(
        1.02, y, f"{_points(value)}{spread}{p_value}", transform=axes.get_yaxis_transform(), ha="left", va="center",
        fontsize=8, color="#444444",
    )  # fmt: skip


def _points(value: float) -> str:
    return f"{value:+.1f}".replace("-", "\N{MINUS SIGN}")
