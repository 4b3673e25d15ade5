"""What was tried and what it scored, a panel a hyperparameter: slice plots, as Optuna's users know them."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
from matplotlib.figure import Figure

from orchestrator.analysis.figures.board import NOTHING, board, entitle
from orchestrator.analysis.figures.looks import handles, key_of, looks_of, names_of
from orchestrator.analysis.figures.robustness import is_logarithmic, is_numeric, value_axis
from orchestrator.analysis.figures.style import style
from orchestrator.analysis.missing import missing_of
from orchestrator.analysis.questions.tried import searched_of
from orchestrator.analysis.text import wording

_STRIP = 0.62  # of the distance between neighbouring values, over which the methods stand side by side


def slices_figure(tried: pa.Table) -> Figure:
    """`Results.tried`: a dot a configuration, by the value it has and how far it is behind the best of its task.

    The methods of a value stand side by side in the order of the legend, so that dots do not hide each other; the
    short line is their median.
    """
    rows, names = tried.to_pylist(), searched_of(tried)
    looks = looks_of(rows)
    tasks = len({row["task"] for row in rows})
    with style():
        sheet = board(
            len(names),
            title="What was tried",
            caption=f"a dot a configuration: how far its validation score is behind the best of its task, "
            f"{wording.plural(len(rows), 'configuration')} on {wording.plural(tasks, 'task')}; lines are medians"
            if rows
            else NOTHING,
            legend=handles(looks, names_of(rows)),
            notes=missing_of(tried) + ([] if names or not rows else ["no hyperparameter has more than one value"]),
            panel=(2.8, 2.1),
            margins=(0.68, 0.35),
        )
        for index, (name, axes) in enumerate(zip(names, sheet.panels, strict=True)):
            own = [row for row in rows if row[name] is not None]
            values = sorted({row[name] for row in own})
            methods = [key for key in looks if any(key_of(row) == key for row in own)]
            for place, key in enumerate(methods):
                look = looks[key]
                shift = _STRIP * ((place + 0.5) / len(methods) - 0.5)
                for value in values:
                    behind = 100 * np.array(
                        [row["loss_to_best"] for row in own if key_of(row) == key and row[name] == value]
                    )
                    if behind.size:
                        x = _moved(value, values, shift)
                        axes.plot(
                            np.full(behind.size, x), -behind, linestyle="none", marker=look.marker, color=look.color,
                            markersize=3.6, alpha=0.55, markeredgewidth=0.0 if look.marker not in "1234+x" else 0.8,
                        )  # fmt: skip
                        left, right = (
                            _moved(value, values, shift + side * 0.4 * _STRIP / len(methods)) for side in (-1, 1)
                        )
                        axes.hlines(-float(np.median(behind)), left, right, color=look.color, linewidth=1.6, zorder=4)
            value_axis(axes, values)
            _widen(axes, values)
            entitle(sheet, axes, name.replace("_", " "))
            axes.tick_params(labelsize=8)
            if index % sheet.across == 0:
                axes.set_ylabel("behind the best (points)", fontsize=9)
        return sheet.figure


def _widen(axes: object, values: list[object]) -> None:
    """Room for the strips of the first and last value."""
    ends = [_moved(values[0], values, -0.7 * _STRIP), _moved(values[-1], values, 0.7 * _STRIP)] if values else []
    if ends:
        axes.set_xlim(*ends)  # type: ignore[attr-defined]


def _moved(value: object, values: list[object], shift: float) -> float:
    """Where a value stands, moved by a share of the smallest distance between neighbours."""
    if not is_numeric(values):
        return values.index(value) + shift
    at = np.array(values, dtype=float)
    here = float(value)  # type: ignore[arg-type]
    if is_logarithmic(values):
        return float(here * np.exp(shift * np.diff(np.log(at)).min()))
    step = float(np.diff(at).min()) if len(at) > 1 else abs(here) or 1.0
    return here + shift * step
