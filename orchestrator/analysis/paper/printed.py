"""Tables 1 and 2 as they are printed: scores in points, the best of a row in bold, a dash where there is nothing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pyarrow as pa

from orchestrator.analysis.missing import missing_of
from orchestrator.analysis.paper.parameter_table import CHOSEN_PER_TASK
from orchestrator.analysis.paper.typeset import Cell, PrintedTable
from orchestrator.analysis.reported import Method, method_names
from orchestrator.analysis.text import wording

Row = dict[str, Any]
IN_BOLD = "; the best of each row in bold"  # of the caption, where what is printed can be
_POINTS = 100.0  # where every score is a share or a correlation


def printed_scores(scores: pa.Table, parameters: pa.Table) -> PrintedTable:
    """Table 2: a row per task, a column per method, then the averages and what the methods cost."""
    rows = scores.to_pylist()
    methods = _methods(rows)
    names = method_names(methods)
    scale, unit = _scale([row["score"] for row in rows])
    by_task: dict[str | None, dict[Method, Row]] = {}
    for row in rows:
        by_task.setdefault(row["task"], {})[Method(row["backbone"], row["method"])] = row
    metrics = {row["metric"] for row in rows if row["metric"] is not None}
    groups = [
        tuple(
            (
                Cell(text=_task_name(task, own, len(metrics) > 1)),
                *(_score(own.get(method), scale) for method in methods),
            )
            for task, own in by_task.items()
            if task is not None
        )
    ]
    if None in by_task:
        number = next(iter(by_task[None].values()))["num_tasks"]
        averages = (_score(by_task[None].get(method), scale) for method in methods)
        groups.append(((Cell(text=f"Average ({wording.plural(number, 'task')})"), *averages),))
    groups.append(_costs(parameters, methods))
    seeds = wording.over(rows)
    split = _splits(rows)
    measured = f"{next(iter(metrics)).replace('_', ' ')}" if len(metrics) == 1 else "score"
    return PrintedTable(
        label="scores",
        caption=f"{split} {measured}{unit} of the configuration of each method that was chosen on validation, "
        f"mean \N{PLUS-MINUS SIGN} s.e.m. over {seeds}{IN_BOLD}.",
        head=("", *(names[method].replace("_", " ") for method in methods)),
        groups=tuple(group for group in groups if group),
        notes=tuple(missing_of(scores)),
    )


def printed_parameters(parameters: pa.Table) -> PrintedTable:
    """Table 1: a row per method and size, what it costs to serve all tasks, then its scores."""
    rows = parameters.to_pylist()
    methods = _methods(rows)
    names = method_names(methods)
    columns = [name for name in parameters.column_names if name.startswith("score/")]
    scale, unit = _scale([row[name] for row in rows for name in columns])
    groups: dict[Method, list[tuple[Cell, ...]]] = {}
    for row in rows:
        method = Method(row["backbone"], row["method"])
        name = names[method].replace("_", " ") + (f" ({row['size'].replace('_', ' ')})" if row["size"] else "")
        scores = (Cell(text=_number(row[column], scale)) for column in columns)
        cells = (
            Cell(text=name),
            Cell(text=_times(row["total_multiple"])),
            Cell(text=_percent(row["trained_percent"])),
            Cell(text=_percent(row["trained_percent_of_encoder"])),
            *scores,
            Cell(text=_number(row["average"], scale)),
        )
        groups.setdefault(method, []).append(cells)
    tasks = [name.removeprefix("score/") for name in columns]
    return PrintedTable(
        label="parameters",
        caption="Parameters of a model that serves all tasks, as a multiple of the backbone; trained per task in per "
        "cent of the backbone and of its encoder's layers alone, heads left out; mean scores"
        f"{unit} of the configurations chosen on validation.",
        head=("", "total", "trained", "of encoder", *tasks, "average"),
        groups=tuple(tuple(group) for group in groups.values()),
        notes=tuple(missing_of(parameters)),
    )


def _methods(rows: Sequence[Row]) -> list[Method]:
    return sorted({Method(row["backbone"], row["method"]) for row in rows})


def _scale(scores: Sequence[float | None]) -> tuple[float, str]:
    """Points where every score lies in [-1, 1], which an error in the unit of its labels need not."""
    known = [score for score in scores if score is not None]
    return (_POINTS, " (points)") if all(abs(score) <= 1 for score in known) else (1.0, "")


def _task_name(task: str, own: dict[Method, Row], with_metric: bool) -> str:
    metric = next((row["metric"] for row in own.values() if row["metric"]), None)
    return f"{task} ({metric.replace('_', ' ')})" if with_metric and metric else task


def _splits(rows: Sequence[Row]) -> str:
    used = {row["split"] for row in rows if row["split"]}
    return "Test and, where there is no test split, validation" if len(used) > 1 else next(iter(used), "").capitalize()


def _score(row: Row | None, scale: float) -> Cell:
    if row is None or row["score"] is None:
        return Cell(text=wording.UNKNOWN)
    spread = "" if row["score_sem"] is None else f" \N{PLUS-MINUS SIGN} {_number(row['score_sem'], scale)}"
    return Cell(text=f"{_number(row['score'], scale)}{spread}", is_bold=bool(row["is_best"]))


def _number(value: float | None, scale: float) -> str:
    if value is None:
        return wording.UNKNOWN
    shown = f"{scale * value:.1f}" if scale == _POINTS else f"{value:.3g}"
    return shown.replace("-", "\N{MINUS SIGN}")


def _costs(parameters: pa.Table, methods: Sequence[Method]) -> tuple[tuple[Cell, ...], ...]:
    own = {
        Method(row["backbone"], row["method"]): row
        for row in parameters.to_pylist()
        if row["size"] in (None, CHOSEN_PER_TASK)
    }
    if not any(row["total_multiple"] for row in own.values()):
        return ()
    totals = (_times(own[m]["total_multiple"]) if m in own else wording.UNKNOWN for m in methods)
    shares = (_percent(own[m]["trained_percent"]) if m in own else wording.UNKNOWN for m in methods)
    return (
        (Cell(text="Total parameters"), *(Cell(text=text) for text in totals)),
        (Cell(text="Trained per task"), *(Cell(text=text) for text in shares)),
    )


def _times(value: float | None) -> str:
    """1.19\N{MULTIPLICATION SIGN}, 9.0\N{MULTIPLICATION SIGN}: two decimals below 2."""
    return wording.UNKNOWN if value is None else f"{value:.{2 if value < 2 else 1}f}\N{MULTIPLICATION SIGN}"


def _percent(value: float | None) -> str:
    if value is None:
        return wording.UNKNOWN
    return f"{value:.0f} %" if value >= 99.95 or value == 0 else f"{value:.3g} %"
