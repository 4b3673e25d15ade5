"""How much each hyperparameter matters, a panel a method."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from orchestrator.analysis.figures.board import NOTHING, board, entitle
from orchestrator.analysis.figures.looks import key_of, looks_of, names_of
from orchestrator.analysis.figures.style import style
from orchestrator.analysis.figures.text import fitted
from orchestrator.analysis.missing import missing_of
from orchestrator.analysis.text import wording
from orchestrator.analysis.text.visible import one_line

_NAMES, _ROW = 1.35, 0.24


def importance_figure(importance: pa.Table) -> Figure:
    """`Results.importance`: bars are shares of the explained variance, whiskers a standard deviation over seeds."""
    rows = importance.to_pylist()
    looks, names = looks_of(rows), names_of(rows)
    keys = list(looks)
    most = max((sum(key_of(row) == key for row in rows) for key in keys), default=1)
    seeds = wording.over(rows)
    where = rows[0]["task"] if rows and rows[0]["task"] else "all tasks, each counting the same"
    with style():
        sheet = board(
            len(keys),
            title="Which hyperparameters matter",
            caption=f"share of the variance of validation scores that each explains on its own (fANOVA), mean and "
            f"standard deviation over {seeds}; {where}"
            if rows
            else NOTHING,
            notes=missing_of(importance),
            panel=(1.9, max(0.5, _ROW * most)),
            gaps=(_NAMES + 0.2, 0.3),
            margins=(_NAMES + 0.2, 0.4),
            head=0.42,
        )
        for key, axes in zip(keys, sheet.panels, strict=True):
            own = sorted((row for row in rows if key_of(row) == key), key=lambda row: row["importance"])[-most:]
            y = np.arange(most - len(own), most)
            spread = [row["spread"] or 0.0 for row in own]
            axes.barh(
                y, [row["importance"] for row in own], height=0.62, color=looks[key].color, xerr=spread,
                error_kw={"ecolor": "#333333", "elinewidth": 0.9},
            )  # fmt: skip
            axes.set_yticks(y, [fitted(one_line(row["hyperparameter"].replace("_", " ")), _NAMES, 8) for row in own])
            axes.set(ylim=(-0.6, most - 0.4), xlim=(0, 1.08))
            axes.xaxis.set_major_formatter(PercentFormatter(1.0))
            axes.tick_params(labelsize=8, length=0)
            axes.grid(visible=False)
            axes.grid(visible=True, axis="x")
            entitle(sheet, axes, names[key], f"{own[0]['num_configs']:,} configurations")
        return sheet.figure
