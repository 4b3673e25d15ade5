"""Answers as pictures, in the manner of the figures of Houlsby et al. 2019 and of hyperparameter studies.

The only door to matplotlib. Figures are plain `Figure` objects drawn by Agg: no pyplot, no display, no state between
calls. Each is drawn by a function of one table, in a file of its own; `FIGURES` finds it by name.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import pyarrow as pa
from matplotlib.figure import Figure

from orchestrator.analysis.figures.critical_difference import critical_difference_figure
from orchestrator.analysis.figures.curve import curve_figure, tasks_figure
from orchestrator.analysis.figures.expected_validation import expected_validation_figure
from orchestrator.analysis.figures.forest import forest_figure
from orchestrator.analysis.figures.forgetting import forgetting_figure
from orchestrator.analysis.figures.heatmap import ablation_figure
from orchestrator.analysis.figures.importance import importance_figure
from orchestrator.analysis.figures.learning_curves import learning_curves_figure
from orchestrator.analysis.figures.parallel_coordinates import parallel_coordinates_figure
from orchestrator.analysis.figures.pareto import pareto_figure
from orchestrator.analysis.figures.profile import profile_figure
from orchestrator.analysis.figures.robustness import robustness_figure
from orchestrator.analysis.figures.slices import slices_figure
from orchestrator.analysis.figures.style import KINDS, render

__all__ = [
    "FIGURES",
    "KINDS",
    "Drawn",
    "ablation_figure",
    "curve_figure",
    "forgetting_figure",
    "render",
    "tasks_figure",
]


class Drawn(NamedTuple):
    """A figure: the method of `Results` that gives its table, and the function that draws it."""

    asks: str
    draw: Callable[[pa.Table], Figure]


FIGURES: dict[str, Drawn] = {
    "curve": Drawn("curve", curve_figure),
    "tasks": Drawn("points", tasks_figure),
    "ablation": Drawn("ablation", ablation_figure),
    "learning_curves": Drawn("learning_curves", learning_curves_figure),
    "robustness": Drawn("robustness", robustness_figure),
    "slices": Drawn("tried", slices_figure),
    "parallel_coordinates": Drawn("tried", parallel_coordinates_figure),
    "importance": Drawn("importance", importance_figure),
    "expected_validation": Drawn("expected_validation", expected_validation_figure),
    "pareto": Drawn("trade_off", pareto_figure),
    "profile": Drawn("profile", profile_figure),
    "forest": Drawn("paired_differences", forest_figure),
    "critical_difference": Drawn("ranks", critical_difference_figure),
}
