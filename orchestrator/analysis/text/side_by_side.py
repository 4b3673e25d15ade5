"""Methods set side by side, as the report shows it: tables of text, and only where a sweep has enough to compare."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc

from orchestrator.analysis.configurations import backbone_names
from orchestrator.analysis.paper.printed import IN_BOLD, printed_parameters, printed_scores
from orchestrator.analysis.paper.typeset import PrintedTable
from orchestrator.analysis.text import wording
from orchestrator.analysis.text.tables import Names, TextTable
from orchestrator.analysis.text.visible import shortened

_MOST_OF_A_HEAD = 24  # characters; a column of numbers need be no wider


def enough(table: pa.Table, *, methods: int = 1, tasks: int = 1) -> pa.Table:
    """The table, or one without rows where it has fewer methods, on any backbone, or tasks than that."""
    num_tasks = pc.max(table["num_tasks"]).as_py() if "num_tasks" in table.column_names else _distinct(table, "task")
    num_methods = len(table.group_by(["backbone", "method"]).aggregate([]))
    return table if num_methods >= methods and (num_tasks or 0) >= tasks else table.slice(0, 0)


def scores_table(scores: pa.Table, parameters: pa.Table) -> TextTable:
    """`Results.score_table` as the paper's Table 2."""
    return _text(printed_scores(scores, parameters), "What each method scores on each task", first="task")


def parameters_table(parameters: pa.Table) -> TextTable:
    """`Results.parameter_table` as the paper's Table 1."""
    return _text(printed_parameters(parameters), "What it costs to serve all tasks", first="method")


def differences_table(differences: pa.Table, backbones: Names | None = None) -> TextTable:
    """A row per method and task of `Results.paired_differences`, in points; means over tasks last."""
    backbones = backbone_names(differences) if backbones is None else backbones
    rows = differences.to_pylist()
    reference = rows[0]["reference"] if rows else "the reference"
    return TextTable(
        title=f"Differences to {reference} in points, positive is better",
        left=("task", "method"),
        right=("difference", "95 % interval", "tried", f"tried of {reference}", "p (Holm)"),
        rows=tuple(
            (
                row["task"] or f"mean of {wording.plural(row['num_tasks'], 'task')}",
                wording.method(row, backbones=backbones),
                wording.percent(100 * row["difference"]),
                _interval(row["low"], row["high"]),
                wording.cell(row["num_configs_tried"]),
                wording.cell(row["num_configs_tried_of_reference"]),
                "" if row["p_holm"] is None else wording.p_value(row["p_holm"]).removeprefix("= "),
            )
            for row in rows
        ),
    )


def _text(printed: PrintedTable, title: str, *, first: str) -> TextTable:
    """`first`: what the first column holds, whose heading is left empty in print."""
    heads = shortened(printed.head[1:], _MOST_OF_A_HEAD)
    return TextTable(
        title=f"{title}. {printed.caption.replace(IN_BOLD, '')}",
        left=(printed.head[0] or first,),
        right=tuple(heads[name] for name in printed.head[1:]),
        rows=tuple(tuple(cell.text for cell in row) for row in printed.rows()),
    )


def _interval(low: float | None, high: float | None) -> str:
    known = low is not None and high is not None
    return f"{wording.percent(100 * low)} to {wording.percent(100 * high)}" if known else wording.UNKNOWN  # type: ignore[operator]


def _distinct(table: pa.Table, column: str) -> int:
    return int(pc.count_distinct(table[column]).as_py())
