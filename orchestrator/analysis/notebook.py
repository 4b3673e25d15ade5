"""Results and their tables as a notebook shows them.

`%load_ext adaptune` makes every pyarrow Table in that notebook one with rows and columns, and figures, which are made
without pyplot, pictures. Results show their answer without it.
"""

from __future__ import annotations

import html
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from orchestrator.analysis.text import wording
from orchestrator.analysis.text.visible import visible

if TYPE_CHECKING:
    from orchestrator.analysis.results import Results
    from orchestrator.analysis.text.tables import TextTable

MAX_ROWS = 40  # of a table; the rest is counted
MAX_CHARACTERS = 60  # of a cell

_LEFT = ' style="text-align:left"'


def load_ipython_extension(ipython: Any) -> None:
    """What `%load_ext adaptune` does: pyarrow Tables are shown as tables, and figures as pictures."""
    formatters = ipython.display_formatter.formatters
    formatters["text/html"].for_type(pa.Table, table_html)
    formatters["image/png"].for_type_by_name("matplotlib.figure", "Figure", _picture)


def unload_ipython_extension(ipython: Any) -> None:
    """What `%unload_ext adaptune` does."""
    formatters = ipython.display_formatter.formatters
    formatters["text/html"].pop(pa.Table, None)
    formatters["image/png"].pop("matplotlib.figure.Figure", None)


def _picture(figure: Any) -> bytes:
    from orchestrator.analysis import figures  # matplotlib is there, or there would be no figure

    return figures.render(figure, "png")


def results_html(results: Results) -> str:
    """How far the sweep is, what to ship, and the best of each method."""
    from orchestrator.analysis.text import tables

    parts = [f"<p>{html.escape(wording.status_line(results.counts()))}</p>"]
    if len(recommended := results.recommend()):
        names, backbones = results.searched(), results.backbone_names()
        parts.append(text_table_html(tables.recommendation_table(recommended, names, backbones)))
        parts.append(text_table_html(tables.best_table(results.best(results.method_columns()), names, backbones)))
    return "".join(parts)


def text_table_html(table: TextTable) -> str:
    """A table of text under its title, and below it what a reader must know to read it fairly."""
    aligned = [_LEFT] * len(table.left) + [""] * len(table.right)
    shown = _table([*table.left, *table.right], table.rows, aligned, caption=table.title)
    return f"{shown}<p>{_text(table.note)}</p>" if table.note else shown


def table_html(table: pa.Table) -> str:
    """The first rows of a table, numbers with four significant digits; columns without any value are left out."""
    shown = table.slice(0, MAX_ROWS)
    names = [name for name in shown.column_names if shown[name].null_count < len(shown) or not len(shown)]
    columns = [shown[name].to_pylist() for name in names]
    aligned = ["" if _is_number(shown.schema.field(name).type) else _LEFT for name in names]
    size = f"{wording.plural(len(table), 'row')}, {wording.plural(table.num_columns, 'column')}"
    left_out = [name for name in table.column_names if name not in names]
    notes = [size, *([f"the first {MAX_ROWS} are shown"] if len(table) > MAX_ROWS else [])]
    notes += [f"empty: {', '.join(left_out)}"] if left_out else []
    return _table(names, zip(*map(_cells, columns), strict=True), aligned, caption="; ".join(notes))


def _is_number(kind: pa.DataType) -> bool:
    return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind))


def _cells(values: Sequence[Any]) -> list[str]:
    return [_cell(value) for value in values]


def _cell(value: Any) -> str:
    if value is None:
        return ""
    text = f"{value:.4g}" if isinstance(value, float) else str(value)
    return text if len(text) <= MAX_CHARACTERS else f"{text[: MAX_CHARACTERS - 1]}\N{HORIZONTAL ELLIPSIS}"


def _text(text: str) -> str:
    """As HTML that shows it, control characters and turned directions of writing as escapes."""
    return html.escape(visible(text))


def _table(names: Sequence[str], rows: Iterable[Sequence[str]], aligned: Sequence[str], *, caption: str) -> str:
    head = "".join(f"<th scope=col{style}>{_text(name)}</th>" for name, style in zip(names, aligned, strict=True))
    body = "".join(
        f"<tr>{''.join(f'<td{style}>{_text(cell)}</td>' for cell, style in zip(row, aligned, strict=True))}</tr>"
        for row in rows
    )
    label = f"<caption{_LEFT}>{_text(caption)}</caption>"
    return (
        f'<div style="overflow-x:auto"><table>{label}<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'
    )
