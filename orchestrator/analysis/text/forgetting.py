"""The forgetting matrix and its measures as text: tables for a terminal, and a page in Markdown."""

from __future__ import annotations

from typing import Any

import pyarrow as pa

from orchestrator.analysis.sequences import SequenceResults
from orchestrator.analysis.text import wording
from orchestrator.analysis.text.tables import TextTable

_HEADINGS = {
    "average_score": "average at the end",
    "learning_score": "when learned",
    "forgetting": "forgetting",
    "backward_transfer": "backward transfer",
}
_SIGNED = ("backward_transfer",)


def kind(row: dict[str, Any]) -> str:
    """How a method met the tasks, in a few words."""
    return "one model" if row["is_sequential"] else "its own weights for each task"


def measures_table(measures: pa.Table) -> TextTable:
    """A row a method of `SequenceResults.measures`, in points."""
    by_method: dict[str, list[dict[str, Any]]] = {}
    for row in measures.to_pylist():
        by_method.setdefault(row["method"], []).append(row)
    return TextTable(
        title="What is left of earlier tasks, in points (mean ± s.e.m. over seeds)",
        left=("method", "trains"),
        right=(*_HEADINGS.values(), "seeds"),
        rows=tuple(
            (method, kind(rows[0]), *(points(row) for row in rows), str(rows[0]["num_seeds"]))
            for method, rows in by_method.items()
        ),
    )


def matrix_tables(matrix: pa.Table) -> list[TextTable]:
    """A table a method of `SequenceResults.matrix`: a row a task trained, a column a task evaluated, in points."""
    tables = []
    for method, rows in by_method(matrix).items():
        cells = {(row["after"], row["place"]): row for row in rows}
        names = task_names(rows)
        tables.append(
            TextTable(
                title=f"{method} ({kind(rows[0])})",
                left=("after",),
                right=tuple(names.values()),
                rows=tuple((names[after], *(_cell(cells.get((after, place))) for place in names)) for after in names),
            )
        )
    return tables


def by_method(matrix: pa.Table) -> dict[str, list[dict[str, Any]]]:
    """The rows of a matrix by method, in the order they come."""
    found: dict[str, list[dict[str, Any]]] = {}
    for row in matrix.to_pylist():
        found.setdefault(row["method"], []).append(row)
    return found


def task_names(rows: list[dict[str, Any]]) -> dict[int, str]:
    """What the task at each place is called; by its place, where seeds have orders of their own or it has failed."""
    found = {row["after"]: row["after_task"] for row in rows} | {row["place"]: row["task"] for row in rows}
    return {place: found.get(place) or f"task {place}" for place in range(1, max(found) + 1)}


def unchanged_sentence(matrix: pa.Table) -> str:
    """What of the outputs stayed the same to the last bit, method by method."""
    parts = []
    for method, rows in by_method(matrix).items():
        later = [row for row in rows if row["after"] > row["place"]]
        same = sum(row["is_unchanged"] for row in later)
        parts.append(f"{method} {same} of {len(later)}")
    return f"Cells below the diagonal in which every output is what it was right after training: {', '.join(parts)}."


def markdown(results: SequenceResults) -> str:
    """The measures, and the matrix of every method, as tables in Markdown."""
    matrix = results.matrix()
    parts = [_as_markdown(measures_table(results.measures()))]
    for table in matrix_tables(matrix):
        parts += [f"**{table.title}**", _as_markdown(table)]
    parts.append(
        "Scores in points, mean ± s.e.m. over seeds; a row is what the tasks score after its task was trained. "
        f"{_measured_by(results)} {unchanged_sentence(matrix)}"
    )
    return "\n\n".join(parts) + "\n"


def _measured_by(results: SequenceResults) -> str:
    """By which metrics, on which rows, which tasks are measured."""
    tasks: dict[str, list[str]] = {}
    for row in results.cells().to_pylist():
        of_metric = tasks.setdefault(f"{row['metric'].replace('_', ' ')} on {row['split']}", [])
        if row["task"] not in of_metric:
            of_metric.append(row["task"])
    if len(tasks) == 1:
        return f"All are measured by {next(iter(tasks))}."
    told = [f"{', '.join(names)} by {how}" for how, names in tasks.items()]
    return f"Measured are {'; '.join(told)}."


def points(row: dict[str, Any]) -> str:
    """A measure in points, with its s.e.m.: 71.2 ± 0.4."""
    spread = "" if row["sem"] is None else f" ± {100 * row['sem']:.1f}"
    number = wording.percent(100 * row["mean"]) if row["measure"] in _SIGNED else f"{100 * row['mean']:.1f}"
    return number.replace("-", "\N{MINUS SIGN}") + spread


def _cell(row: dict[str, Any] | None) -> str:
    if row is None:
        return ""
    return f"{100 * row['mean']:.1f}" + ("" if row["sem"] is None else f" ± {100 * row['sem']:.1f}")


def _as_markdown(table: TextTable) -> str:
    headings = (*table.left, *table.right)
    rule = ["---"] * len(table.left) + ["---:"] * len(table.right)
    lines = [headings, rule, *table.rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)
