"""What trained parameters buy, in the manner of Figures 1, 3 and 4 of Houlsby et al. 2019."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from orchestrator.analysis.figures.board import NOTHING, board, entitle
from orchestrator.analysis.figures.looks import Look, edge, handles, key_of, looks_of, names_of
from orchestrator.analysis.figures.style import style
from orchestrator.analysis.figures.text import shortened
from orchestrator.analysis.missing import missing_of
from orchestrator.analysis.questions.placement import Box, Label, place
from orchestrator.analysis.text import wording
from orchestrator.analysis.text.tables import quantile_columns
from trainables.faults import FaultsError

Row = dict[str, Any]

# Series named beside their curves. More would cover each other, and names with a backbone would leave the sheet: these
# stand in a legend.
_MOST_DIRECT = 6


def curve_figure(curve: pa.Table) -> Figure:
    """What trained parameters buy: `Results.curve` with the percentiles of its outer columns as a band.

    Between the outer quantiles a method's band is shaded, and its middle one drawn as a line; a method with a single
    size is a marker with an error bar. Deltas are drawn in points (hundredths). Rows of unknown size are left out.
    Up to six methods on one backbone are named beside their curves, others in a legend. Raises `FaultsError` where the
    table has no quantile.
    """
    if not (columns := quantile_columns(curve)):
        raise FaultsError("curve", ["quantiles: must be at least one to draw a curve, but got none"])
    rows = [row for row in curve.to_pylist() if row["trained_params"]]
    reference = rows[0]["normalize_to"] if rows else None
    scale = 100.0 if reference else 1.0
    low, middle, high = columns[0], columns[len(columns) // 2], columns[-1]
    series, looks, names = _series(rows), looks_of(rows), names_of(rows)
    are_named_directly = len(series) <= _MOST_DIRECT and len({row["backbone"] for row in rows}) <= 1
    with style():
        sheet = board(
            1,
            title="What trained parameters buy",
            caption=_curve_caption(rows, (low, middle, high)),
            legend=() if are_named_directly else handles(looks, names),
            notes=missing_of(curve),
            panel=(6.28, 3.35),
            margins=(0.75, 0.58),
            head=0.1,
        )
        (axes,) = sheet.panels
        for key, points in series.items():
            x = np.array([point["trained_params"] for point in points], dtype=float)
            bands = scale * np.array([[point[name] for point in points] for name in (low, middle, high)])
            _draw_band(axes, x, bands, looks[key], shade=0.16 if are_named_directly else 0.08)
        if reference:
            axes.axhline(0, color="#999999", linewidth=0.8, linestyle=(0, (4, 3)), zorder=1)
        parameter_axis(axes, [row["trained_params"] for row in rows], margin=1.35)
        axes.set_ylabel(_value_name(rows, reference))
        axes.margins(y=0.12)
        if are_named_directly:
            _label_directly(axes, series, (low, high), scale, looks, names)
        return sheet.figure


def tasks_figure(points: pa.Table) -> Figure:
    """A panel a task: `Results.points`, score over seeds (mean, bars of one s.e.m.) against trained parameters.

    Figures 4 and 5 of the paper, where the points are scored on validation.
    """
    rows = [row for row in points.to_pylist() if row["trained_params"]]
    tasks, looks = sorted({row["task"] for row in rows}), looks_of(rows)
    seeds = wording.over(rows)
    caption = f"best configuration of each size, {wording.plural(len(tasks), 'task')}, mean ± s.e.m. over {seeds}"
    with style():
        sheet = board(
            len(tasks),
            title="What trained parameters buy on each task",
            caption=caption if tasks else NOTHING,
            legend=handles(looks, names_of(rows)),
            notes=missing_of(points),
            head=0.42,
        )
        for index, (task, axes) in enumerate(zip(tasks, sheet.panels, strict=True)):
            own = [row for row in rows if row["task"] == task]
            for key, series in _series(own).items():
                _draw_means(axes, series, looks[key])
            parameter_axis(axes, [row["trained_params"] for row in rows], margin=1.6, dense=False)
            axes.margins(y=0.12)
            entitle(
                sheet, axes, task, f"{own[0]['split']} {(own[0]['metric'] or 'score').replace('_', ' ')}", among=tasks
            )
            axes.tick_params(labelsize=8)
            if not sheet.is_lowest(index):
                axes.set_xlabel("")
        return sheet.figure


def _series(rows: Sequence[Row]) -> dict[tuple[str, str], list[Row]]:
    """Rows by method and backbone, each from small to large."""
    ordered = sorted(rows, key=lambda row: (*key_of(row), row["trained_params"]))
    return {name: list(group) for name, group in itertools.groupby(ordered, key=key_of)}


def _draw_band(axes: Axes, x: np.ndarray, bands: np.ndarray, look: Look, *, shade: float) -> None:
    low, middle, high = bands
    if len(x) > 1:
        axes.fill_between(x, low, high, color=look.color, alpha=shade, linewidth=0)
        for outer in (low, high):
            axes.plot(x, outer, color=look.color, alpha=0.35, linewidth=0.7)
    else:
        axes.vlines(x, low, high, color=look.color, linewidth=1.4)
    _draw_line(axes, x, middle, look, size=6.5)


def _draw_means(axes: Axes, points: Sequence[Row], look: Look) -> None:
    x = np.array([point["trained_params"] for point in points], dtype=float)
    score = np.array([point["score"] for point in points])
    sem = np.array([point["score_sem"] or 0.0 for point in points])
    axes.vlines(x, score - sem, score + sem, color=look.color, linewidth=1.2)
    _draw_line(axes, x, score, look, size=5)


def _draw_line(axes: Axes, x: np.ndarray, y: np.ndarray, look: Look, *, size: float) -> None:
    axes.plot(
        x, y, color=look.color, linestyle=look.dashes, linewidth=1.8, marker=look.marker, markersize=size,
        markeredgecolor=edge(look), markeredgewidth=0.9, zorder=3, clip_on=False,
    )  # fmt: skip


def parameter_axis(axes: Axes, sizes: Sequence[float], *, margin: float, dense: bool = True) -> None:
    """A log axis with round numbers: 10k, 100k, 1M; also 2 and 5 times these where it spans less than 1.5 decades."""
    axes.set_xscale("log")
    axes.set_xlabel("trained parameters per task" if dense else "trained parameters", fontsize=10 if dense else 9)
    if not sizes:
        return
    low, high = min(sizes) / margin, max(sizes) * margin
    axes.set_xlim(low, high)
    decades = 10.0 ** np.arange(np.floor(np.log10(low)), np.ceil(np.log10(high)) + 1)
    steps = (1, 2, 5) if high / low < 10**1.5 else (1,)
    ticks = [float(step * decade) for decade in decades for step in steps]
    if not dense:  # every second decade of many
        ticks = ticks[:: max(1, -(-len(ticks) // 6))]
    axes.xaxis.set_major_locator(FixedLocator(ticks))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: wording.count_tick(value)))
    axes.xaxis.set_minor_locator(
        FixedLocator([float(step * decade) for decade in decades for step in range(2, 10)]) if dense else NullLocator()
    )


def _label_directly(
    axes: Axes,
    series: dict[tuple[str, str], list[Row]],
    outer: tuple[str, str],
    scale: float,
    looks: dict[tuple[str, str], Look],
    names: dict[tuple[str, str], str],
) -> None:
    """Write each method's name beside its own curve, in its own colour, where nothing is covered."""
    canvas = FigureCanvasAgg(axes.get_figure(root=True))
    axes.autoscale_view()  # fixes the limits, which are else left open until the figure is drawn
    texts, labels = [], []
    for key, points in series.items():
        text = axes.figure.text(
            0, 0, shortened(names[key], 40), color=looks[key].color, fontweight="bold", fontsize=10.5, va="bottom"
        )
        text.set_path_effects([withStroke(linewidth=4, foreground="white")])  # where the line of the reference passes
        extent = text.get_window_extent(canvas.get_renderer())
        corners = [axes.transData.transform([(p["trained_params"], scale * p[name]) for p in points]) for name in outer]
        band = np.column_stack([corners[0], corners[1][:, 1]])
        texts.append(text)
        labels.append(Label(width=extent.width, height=extent.height, curve=band))
    frame = axes.get_window_extent()
    bounds = Box(left=frame.x0, bottom=frame.y0, width=frame.width, height=frame.height)
    for text, box in zip(texts, place(labels, bounds, gap=9 * axes.figure.dpi / 72), strict=True):
        left, bottom = axes.figure.transFigure.inverted().transform((box.left, box.bottom))
        text.set_position((float(left), float(bottom)))


def _value_name(rows: Sequence[Row], reference: str | None) -> str:
    metrics = {row["metric"] for row in rows}
    name = ((metrics.pop() if len(metrics) == 1 else None) or "score").replace("_", " ")
    return f"{name} relative to {reference.replace('_', ' ')} (points)" if reference else name


def _curve_caption(rows: Sequence[Row], columns: tuple[str, str, str]) -> str:
    low, middle, high = (column.removeprefix("p") for column in columns)
    if not rows:
        return NOTHING
    tasks, seeds = (
        wording.span([row["num_tasks"] for row in rows], "task"),
        wording.over(rows),
    )
    level = "median" if middle == "50" else f"percentile {middle}"
    spread = f"{level} and percentiles {low} to {high} across {tasks}" if tasks != "1 task" else tasks
    spread += f", mean over {seeds}"
    on_validation = max((row["num_tasks_on_validation"] for row in rows), default=0)
    return spread + (f"; {wording.plural(on_validation, 'task')} scored on validation" if on_validation else "")
