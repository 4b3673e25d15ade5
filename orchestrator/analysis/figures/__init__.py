"""Answers as pictures, in the manner of Figures 1, 3, 4 and 6 of Houlsby et al. 2019. The only door to matplotlib.

Figures are plain `Figure` objects drawn by Agg: no pyplot, no display, no state between calls.
"""

from orchestrator.analysis.figures.curve import curve_figure, tasks_figure
from orchestrator.analysis.figures.heatmap import ablation_figure
from orchestrator.analysis.figures.style import render

__all__ = ["ablation_figure", "curve_figure", "render", "tasks_figure"]
