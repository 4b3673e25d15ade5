"""Results and tables in a notebook."""

from __future__ import annotations

from types import SimpleNamespace

import pyarrow as pa
from IPython.core.formatters import DisplayFormatter

import adaptune
from orchestrator.analysis.notebook import MAX_ROWS, table_html
from orchestrator.analysis.results import Results


def test_a_table_shows_its_first_rows_and_says_what_it_leaves_out() -> None:
    columns = {"task": ["<i>a</i>"] * 100, "score": [0.123456] * 100, "never": pa.nulls(100, pa.int64())}
    page = table_html(pa.table(columns))
    assert page.count("<tr>") == 1 + MAX_ROWS
    assert "100 rows, 3 columns; the first 40 are shown; empty: never" in page
    assert "&lt;i&gt;a&lt;/i&gt;" in page
    assert "<i>" not in page
    assert "<td>0.1235</td>" in page
    assert '<th scope=col style="text-align:left">task</th>' in page


def test_a_table_without_rows_keeps_its_columns() -> None:
    assert "<th scope=col>seed</th>" in table_html(pa.table({"seed": pa.array([], pa.int64())}))


def test_the_extension_shows_tables_and_figures_until_it_is_unloaded(finished: Results) -> None:
    ipython = SimpleNamespace(display_formatter=DisplayFormatter())
    formatters = ipython.display_formatter.formatters
    table, figure = finished.best(), finished.draw("curve")
    assert formatters["text/html"](table) is None
    adaptune.load_ipython_extension(ipython)
    assert formatters["text/html"](table) == table_html(table)
    assert formatters["image/png"](figure).startswith(b"\x89PNG")
    adaptune.unload_ipython_extension(ipython)
    assert formatters["text/html"](table) is None
    assert formatters["image/png"](figure) is None


def test_results_show_how_far_it_is_and_what_to_ship(finished: Results) -> None:
    page = finished._repr_html_()
    assert "144 trials: 142 completed, 2 failed." in page
    assert "Recommended" in page
    assert page.count("<table>") == 2
    assert "Methods were chosen from 1 to 6 configurations" in page  # without which the table is not read fairly


def test_what_would_turn_or_hide_text_is_shown_as_an_escape() -> None:
    page = table_html(pa.table({"a\u202eb": ["\x1b[31mred", "c\u202ed"]}))
    assert "\u202e" not in page
    assert "\x1b" not in page
    assert "\\x1b[31mred" in page
