"""What the adapters of each layer are worth, in the manner of Figure 6 of Houlsby et al. 2019."""

from __future__ import annotations

import textwrap

import numpy as np
import pyarrow as pa
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LinearSegmentedColormap, Normalize
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import FixedLocator

from orchestrator.analysis.figures.style import headline, new_figure, style
from orchestrator.analysis.questions.ablation import Reading, each, read
from orchestrator.analysis.text import wording
from trainables.faults import FaultsError

# Losses in vermilion, gains in blue: apart under every common colour blindness; white is no change at all.
_LOSSES = ("#FFFFFF", "#FBE6D4", "#F3B98A", "#E07B33", "#C2500A", "#8A3300", "#571F00")
_GAINS = ("#FFFFFF", "#DCECF7", "#A5CFEA", "#56A5D6", "#0072B2", "#00507D", "#003350")
CHANGE = LinearSegmentedColormap.from_list("change", [*reversed(_LOSSES), *_GAINS[1:]])
_MOST_NUMBERED = 12  # layers; the cells of more are too small for numbers
_LEFT, _RIGHT, _TOP, _BOTTOM = 0.62, 1.05, 0.98, 0.58  # inches around the cells
_CHARACTERS_AN_INCH = 15  # of the caption


def ablation_figure(ablation: pa.Table) -> Figure:
    """The heat map of one ablation: a cell a span, the first ablated layer downwards, the last to the right.

    The diagonal is single layers, the top right corner all of them. Colour is the change of accuracy (of the score
    where no classes are predicted) in per cent of the whole model's; up to 12 layers it stands in the cells as a
    number too. Raises `FaultsError` where the table has none, or several.
    """
    if (number := len(each(ablation))) != 1:
        nothing = "no trial has been ablated, so there is nothing to draw; `adaptune ablate STORE` does it"
        several = f"must be of one trial on one split to be drawn, but got {number}; name one with trial_id"
        raise FaultsError("ablation", [several if number else nothing])
    reading = read(ablation)
    side = min(6.0, max(4.3, 0.46 * reading.num_layers + 0.5))
    width, height = _LEFT + side + _RIGHT, _TOP + side + _BOTTOM
    with style():
        figure = new_figure(width, height)
        axes = figure.add_axes((_LEFT / width, _BOTTOM / height, side / width, side / height))
        scale = _draw_cells(axes, reading, inches=side / reading.num_layers)
        bar = figure.add_axes(((_LEFT + side + 0.2) / width, _BOTTOM / height, 0.16 / width, side / height))
        figure.colorbar(scale, cax=bar)
        bar.set_ylim(*_range(reading.percent))
        bar.set_ylabel(f"relative change of {reading.measure} (%)", labelpad=8)
        bar.tick_params(length=0, labelsize=9)
        for edge in bar.spines.values():
            edge.set_visible(False)
        caption = textwrap.fill(f"{reading.task}: {reading.setting}", int(_CHARACTERS_AN_INCH * width))
        headline(figure, "What each layer's adapters are worth", f"{caption}\ntrial {reading.trial_id}")
        return figure


def _draw_cells(axes: Axes, reading: Reading, *, inches: float) -> ScalarMappable:
    """The upper triangle of cells, and in the lower one what they are relative to."""
    number = reading.num_layers
    reach = max(0.1, float(np.nanmax(np.abs(reading.percent), initial=0.0)))
    scale = ScalarMappable(Normalize(-reach, reach), CHANGE)  # equal changes are equally strong in both directions
    for first in range(number):
        for last in range(first, number):
            value = reading.percent[first, last]
            face = "#EEEEEE" if np.isnan(value) else scale.to_rgba(value)
            corner = (last - 0.5, first - 0.5)
            axes.add_patch(Rectangle(corner, 1, 1, facecolor=face, edgecolor="#D9D9D9", linewidth=0.6))
            if number <= _MOST_NUMBERED:
                text = wording.percent(value)
                ink = "white" if abs(value) > 0.55 * reach else "#222222"
                size = min(9.5, 18.5 * inches)
                axes.text(last, first, text, ha="center", va="center", fontsize=size, color=ink)
    axes.set(xlim=(-0.5, number - 0.5), ylim=(number - 0.5, -0.5), xlabel="last ablated layer")
    axes.set_ylabel("first ablated layer", labelpad=6)
    step = 1 if number <= _MOST_NUMBERED else 2
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(FixedLocator(list(range(0, number, step))))
    axes.tick_params(length=0, labelsize=9)
    axes.grid(visible=False)
    for edge in axes.spines.values():
        edge.set_visible(False)
    axes.text(
        0.03, 0.015, f"{reading.measure}\nwith all adapters  {wording.score(reading.whole)}\n"
        f"without any  {wording.score(reading.bare)}",
        transform=axes.transAxes, ha="left", va="bottom", fontsize=9, color="#444444", linespacing=1.6,
    )  # fmt: skip
    return scale


def _range(percent: np.ndarray) -> tuple[float, float]:
    """What the colour bar shows of the scale: from the worst change to the best, no change always within."""
    low, high = np.nanmin(percent, initial=0.0), np.nanmax(percent, initial=0.0)
    return (float(low), float(high)) if high > low else (-0.1, 0.1)
