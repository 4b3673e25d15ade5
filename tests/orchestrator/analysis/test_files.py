"""Answers as CSV: what a spreadsheet would compute is text there."""

from __future__ import annotations

import csv
import io
import string

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.analysis.files import csv_bytes


def cells(table: pa.Table) -> list[list[str]]:
    return list(csv.reader(io.StringIO(csv_bytes(table).decode())))[1:]


@pytest.mark.parametrize("text", ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", '=HYPERLINK("http://x")'])
def test_text_that_looks_like_a_formula_begins_with_an_apostrophe(text: str) -> None:
    table = pa.table({"task": [text], "nested": [[text]]})
    ((task, nested),) = cells(table)
    assert task == f"'{text}"
    assert nested.startswith("[")


def test_numbers_and_other_text_stay_as_they_are() -> None:
    table = pa.table({"score": [-0.5, None], "task": ["a=b", None], "seed": [-1, 2], "good": [True, False]})
    assert cells(table) == [["-0.5", "a=b", "-1", "true"], ["", "", "2", "false"]]


@given(texts=st.lists(st.text(alphabet=string.printable), min_size=1, max_size=5))
def test_no_cell_of_text_begins_as_a_formula_does(texts: list[str]) -> None:
    for row in cells(pa.table({"first": texts, "text": pa.array(texts, pa.large_string())})):
        assert all(cell[:1] not in ("=", "+", "-", "@", "\t", "\r") for cell in row if cell)
