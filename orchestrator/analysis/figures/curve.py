"""What trained parameters buy, in the manner of Figures 1, 3 and 4 of Houlsby et al. 2019."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import matplotlib
import numpy as np
import pyarrow as pa
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from orchestrator.analysis import wording
from orchestrator.analysis.figures.style import headline, new_figure, style
from orchestrator.analysis.placement import Box, Label, place
from orchestrator.analysis.tables import quantile_columns, several_backbones
from orchestrator.analysis.visible import visible

Row = dict[str, Any]

# Okabe and Ito's colours, which stay apart under every common colour blindness, darkest first; each with its marker,
# so that they stay apart in print too.
_PALETTE = (
    ("#0072B2", "s"),
    ("#D55E00", "o"),
    ("#009E73", "^"),
    ("#CC79A7", "v"),
    ("#56B4E9", "p"),
    ("#E69F00", "h"),
    ("#8C6D00", "<"),
)
# The paper's own colours, so that its readers find their way; the reference is black. Other methods take the rest.
_PAPER = {
    "adapter": _PALETTE[1],
    "top_layers": _PALETTE[0],
    "layernorm": _PALETTE[2],
    "full_finetuning": ("#222222", "D"),
}
# More methods than colours share those, each with a marker of its own.
_MORE_MARKERS = (">", "X", "P", "*", "d", "8", "H", "1", "2", "3", "4", "+", "x")
_LEGEND_COLUMNS = 4
_DASHES: tuple[Literal["-", "--", ":", "-."], ...] = ("-", "--", ":", "-.")  # one a backbone


@dataclass(frozen=True, kw_only=True)
class _Look:
    color: str
    marker: str
    dashes: Literal["-", "--", ":", "-."]


def curve_figure(curve: pa.Table) -> Figure:
    """What trained parameters buy: `Results.curve` with the percentiles of its outer columns as a band.

    Between the outer quantiles a method's band is shaded, and its middle one drawn as a line; a method with a single
    size is a marker with an error bar. Deltas are drawn in points (hundredths). Rows of unknown size are left out.
    """
    columns = quantile_columns(curve)
    rows = [row for row in curve.to_pylist() if row["trained_params"]]
    reference = rows[0]["normalize_to"] if rows else None
    scale = 100.0 if reference else 1.0
    low, middle, high = columns[0], columns[len(columns) // 2], columns[-1]
    with style():
        figure = new_figure(7.2, 4.6)
        axes = figure.add_axes((0.105, 0.125, 0.865, 0.72))
        series = _series(rows)
        looks = _looks(rows)
        for key, points in series.items():
            x = np.array([point["trained_params"] for point in points], dtype=float)
            bands = scale * np.array([[point[name] for point in points] for name in (low, middle, high)])
            _draw_band(axes, x, bands, looks[key])
        if reference:
            axes.axhline(0, color="#999999", linewidth=0.8, linestyle=(0, (4, 3)), zorder=1)
        _parameter_axis(axes, [row["trained_params"] for row in rows], margin=1.35)
        axes.set_ylabel(_value_name(rows, reference))
        axes.margins(y=0.12)
        _label_directly(axes, series, (low, high), scale, looks)
        headline(figure, "What trained parameters buy", _curve_caption(rows, (low, middle, high)))
        return figure


def tasks_figure(points: pa.Table) -> Figure:
    """A panel a task: `Results.points`, score over seeds (mean, bars of one s.e.m.) against trained parameters."""
    rows = [row for row in points.to_pylist() if row["trained_params"]]
    tasks = sorted({row["task"] for row in rows})
    across = 2 if len(tasks) in (2, 4) else min(3, max(1, len(tasks)))
    down = max(1, -(-len(tasks) // across))
    looks = _looks(rows)
    head = 1.03 + 0.24 * -(-len(looks) // _LEGEND_COLUMNS)  # inches above the first panel: headline and legend
    width, height = max(7.2, 2.9 * across), head + 2.45 * down
    with style():
        figure = new_figure(width, height)
        grid = figure.add_gridspec(
            down, across, left=0.62 / width, right=1 - 0.15 / width, bottom=0.5 / height, top=1 - head / height,
            hspace=0.5, wspace=0.22,
        )  # fmt: skip
        for index, task in enumerate(tasks):
            axes = figure.add_subplot(grid[index // across, index % across])
            own = [row for row in rows if row["task"] == task]
            for key, series in _series(own).items():
                _draw_means(axes, series, looks[key])
            _parameter_axis(axes, [row["trained_params"] for row in rows], margin=1.6, dense=False)
            axes.margins(y=0.12)
            axes.set_title(visible(task), loc="left", fontsize=10, fontweight="bold", color="#222222", pad=17)
            scored = f"{own[0]['split']} {(own[0]['metric'] or 'score').replace('_', ' ')}"
            axes.text(0, 1.035, scored, transform=axes.transAxes, fontsize=8.5, color="#666666")
            axes.tick_params(labelsize=8.5)
            if index + across < len(tasks):
                axes.set_xlabel("")
        seeds = _span([row["num_seeds"] for row in rows], "seed")
        caption = f"best configuration of each size, {wording.plural(len(tasks), 'task')}, mean ± s.e.m. over {seeds}"
        headline(figure, "What trained parameters buy on each task", caption if tasks else "no completed trial yet")
        _legend(figure, looks, several_backbones(points))
        return figure


def _series(rows: Sequence[Row]) -> dict[tuple[str, str], list[Row]]:
    """Rows by method and backbone, each from small to large."""

    def key(row: Row) -> tuple[str, str]:
        return row["method"], row["backbone"]

    ordered = sorted(rows, key=lambda row: (*key(row), row["trained_params"]))
    return {name: list(group) for name, group in itertools.groupby(ordered, key=key)}


def _looks(rows: Sequence[Row]) -> dict[tuple[str, str], _Look]:
    pairs = sorted({(row["method"], row["backbone"]) for row in rows})
    backbones = sorted({backbone for _, backbone in pairs})
    others = sorted({method for method, _ in pairs} - set(_PAPER))
    free = [entry for entry in _PALETTE if entry not in [_PAPER.get(method) for method, _ in pairs]]
    shared = [(free[i % len(free)][0], marker) for i, marker in enumerate(_MORE_MARKERS)]
    chosen = _PAPER | dict(zip(others, [*free, *itertools.islice(itertools.cycle(shared), len(others))], strict=False))
    return {
        (method, backbone): _Look(
            color=chosen[method][0],
            marker=chosen[method][1],
            dashes=_DASHES[backbones.index(backbone) % len(_DASHES)],
        )
        for method, backbone in pairs
    }


def _draw_band(axes: Axes, x: np.ndarray, bands: np.ndarray, look: _Look) -> None:
    low, middle, high = bands
    if len(x) > 1:
        axes.fill_between(x, low, high, color=look.color, alpha=0.16, linewidth=0)
        for edge in (low, high):
            axes.plot(x, edge, color=look.color, alpha=0.35, linewidth=0.7)
    else:
        axes.vlines(x, low, high, color=look.color, linewidth=1.4)
    _draw_line(axes, x, middle, look, size=6.5)


def _draw_means(axes: Axes, points: Sequence[Row], look: _Look) -> None:
    x = np.array([point["trained_params"] for point in points], dtype=float)
    score = np.array([point["score"] for point in points])
    sem = np.array([point["score_sem"] or 0.0 for point in points])
    axes.vlines(x, score - sem, score + sem, color=look.color, linewidth=1.2)
    _draw_line(axes, x, score, look, size=5)


def _draw_line(axes: Axes, x: np.ndarray, y: np.ndarray, look: _Look, *, size: float) -> None:
    axes.plot(
        x, y, color=look.color, linestyle=look.dashes, linewidth=1.8, marker=look.marker, markersize=size,
        markeredgecolor="white", markeredgewidth=0.9, zorder=3, clip_on=False,
    )  # fmt: skip


def _parameter_axis(axes: Axes, sizes: Sequence[float], *, margin: float, dense: bool = True) -> None:
    """A log axis with round numbers: 10k, 100k, 1M; also 2 and 5 times these where it spans less than 1.5 decades."""
    axes.set_xscale("log")
    axes.set_xlabel("trained parameters per task" if dense else "trained parameters")
    if not sizes:
        return
    low, high = min(sizes) / margin, max(sizes) * margin
    axes.set_xlim(low, high)
    decades = 10.0 ** np.arange(np.floor(np.log10(low)), np.ceil(np.log10(high)) + 1)
    steps = (1, 2, 5) if high / low < 10**1.5 else (1,)
    axes.xaxis.set_major_locator(FixedLocator([float(step * decade) for decade in decades for step in steps]))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: wording.count_tick(value)))
    axes.xaxis.set_minor_locator(
        FixedLocator([float(step * decade) for decade in decades for step in range(2, 10)]) if dense else NullLocator()
    )


def _label_directly(
    axes: Axes,
    series: dict[tuple[str, str], list[Row]],
    outer: tuple[str, str],
    scale: float,
    looks: dict[tuple[str, str], _Look],
) -> None:
    """Write each method's name beside its own curve, in its own colour, where nothing is covered."""
    canvas = FigureCanvasAgg(axes.get_figure(root=True))
    axes.autoscale_view()  # fixes the limits, which are else left open until the figure is drawn
    with_backbone = len({backbone for _, backbone in series}) > 1
    texts, labels = [], []
    for key, points in series.items():
        name = _method_name(points[0], with_backbone)
        text = axes.figure.text(0, 0, name, color=looks[key].color, fontweight="bold", fontsize=10.5, va="bottom")
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


def _legend(figure: Figure, looks: dict[tuple[str, str], _Look], with_backbone: bool) -> None:
    handles = [
        matplotlib.lines.Line2D(
            [], [], color=look.color, linestyle=look.dashes, marker=look.marker, markersize=6, markeredgecolor="white",
            label=_method_name({"method": method, "backbone": backbone}, with_backbone),
        )
        for (method, backbone), look in looks.items()
    ]  # fmt: skip
    corner = 0.5 / figure.get_figwidth(), 1 - 0.52 / figure.get_figheight()
    figure.legend(handles=handles, loc="upper left", bbox_to_anchor=corner, ncols=_LEGEND_COLUMNS, frameon=False)


def _value_name(rows: Sequence[Row], reference: str | None) -> str:
    metrics = {row["metric"] for row in rows}
    name = ((metrics.pop() if len(metrics) == 1 else None) or "score").replace("_", " ")
    return f"{name} relative to {reference.replace('_', ' ')} (points)" if reference else name


def _curve_caption(rows: Sequence[Row], columns: tuple[str, str, str]) -> str:
    low, middle, high = (column.removeprefix("p") for column in columns)
    if not rows:
        return "no completed trial yet"
    tasks, seeds = _span([row["num_tasks"] for row in rows], "task"), _span([row["num_seeds"] for row in rows], "seed")
    level = "median" if middle == "50" else f"percentile {middle}"
    spread = f"{level} and percentiles {low} to {high} across {tasks}" if tasks != "1 task" else tasks
    spread += f", mean over {seeds}"
    on_validation = max((row["num_tasks_on_validation"] for row in rows), default=0)
    return spread + (f"; {wording.plural(on_validation, 'task')} scored on validation" if on_validation else "")


def _method_name(row: Row, with_backbone: bool) -> str:
    return wording.method(row, with_backbone=with_backbone).replace("_", " ")


def _span(numbers: Sequence[int], noun: str) -> str:
    """4 tasks; 3 to 4 tasks where points differ."""
    low, high = min(numbers, default=0), max(numbers, default=0)
    return wording.plural(low, noun) if low == high else f"{low:,} to {wording.plural(high, noun)}"
