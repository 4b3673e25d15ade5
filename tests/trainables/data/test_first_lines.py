"""What programs write before, around and after the rows of a delimited file, and which of it is read past."""

from __future__ import annotations

from typing import Any

import pytest

from trainables.data.delimited import read_delimited
from trainables.data.reading import Format, Rows

ROWS = [("one, text", "no"), ("two", "yes"), ("three", "no")]
HEADER = "text,label\n"
BODY = '"one, text",no\ntwo,yes\nthree,no\n'


def read(content: str, delimiter: str = ",", **asked: Any) -> Rows:
    return read_delimited(content.splitlines(keepends=True), Format(**asked), delimiter)


def cells(rows: Rows) -> list[tuple[str, str]]:
    return list(zip(rows.table["text_a"].to_pylist(), rows.table["label"].to_pylist(), strict=True))


@pytest.mark.parametrize(
    ("content", "note"),
    [
        ("sep=;\r\ntext;label\r\none, text;no\r\ntwo;yes\r\nthree;no\r\n", ""),
        ('"sep=,"\n' + HEADER + BODY, ""),
        ("# exported today\n# by me, with care\n" + HEADER + BODY, "a remark above the names of columns: 2 lines"),
        (HEADER + BODY + " \n,\n \t, \n\x1a", "since nothing is in them: 4 lines (5, 6, 7, 8)"),
        ("text,label,\n" + BODY.replace("\n", ",\n"), ""),
        (HEADER + BODY.replace("\n", ",\n"), ""),
        ("text,label,\n" + BODY, ""),
        ('"text","label"\n"1","one, text","no"\n"2","two","yes"\n"3","three","no"\n', ""),
        ('label, text\nno, "one, text"\nyes, two\nno, three\n', ""),
        ('"label", "text"\n"no", "one, text"\n"yes", "two"\n"no", "three"\n', ""),
        ("| text | label |\n|---|:---|\n|one, text|no|\n|two|yes|\n|three|no|\n", "since nothing is in them: line 2"),
        ("# text\tlabel\none, text\tno\ntwo\tyes\nthree\tno\n", ""),
        ("\u200btext\u00a0, label\n" + BODY, ""),
    ],
)
def test_what_surrounds_the_rows_is_no_row(content: str, note: str) -> None:
    rows = read(content)
    assert (cells(rows), rows.faults) == (ROWS, [])
    assert note in "; ".join(rows.notes)


def test_tables_of_r_are_read_with_the_numbers_of_their_rows_and_marks_after_backslashes() -> None:
    rows = read('"text"\t"label"\n"1"\t"one"\t"no"\n"2"\t"two"\t"yes"\n', "\t")
    assert cells(rows) == [("one", "no"), ("two", "yes")]
    rows = read('"text"\t"label"\n"he said \\"no\\""\t0\n"two"\t1\n', "\t")
    assert cells(rows) == [('he said "no"', "0"), ("two", "1")]
    assert "a backslash before a quotation mark" in read('"text"\t"label"\n"C:\\x \\"no\\""\t0\nb\t1\n', "\t").faults[0]


def test_a_blank_that_only_some_delimiters_have_is_of_the_texts() -> None:
    assert cells(read("text, label\none, a\ntwo,b\n")) == [("one", " a"), ("two", "b")]


@pytest.mark.parametrize(
    "content",
    ["text,label\none,a,\ntwo,b\n", "text,label\n1,one,a\n1,two,b\n", "text,label\n12,345,a\n7,1,b\n", "#a,b\nx,y,z\n"],
)
def test_columns_that_not_all_rows_have_or_that_are_no_numbers_stay_faults(content: str) -> None:
    assert any("every row must have" in fault for fault in read(content).faults)


def test_texts_may_begin_as_remarks_do() -> None:
    assert cells(read("text,label\n#one,a\n# two,b\n")) == [("#one", "a"), ("# two", "b")]


def test_names_of_columns_that_stand_again_are_no_row() -> None:
    content = HEADER + BODY + HEADER + "four,yes\n"
    assert "the names of the columns stand again in line 5, as in files put together" in read(content).faults[0]
    rows = read(content, skip_bad_rows=True)
    assert (cells(rows), rows.skipped) == ([*ROWS, ("four", "yes")], 1)
    assert "left out 1 broken row: line 5" in rows.notes


@pytest.mark.parametrize("first", ["text_a,label\n", "review,sentiment\n"])
def test_a_header_that_is_declared_though_a_line_holds_it_is_a_fault(first: str) -> None:
    (fault,) = read(first + BODY, header=("text_a", "label")).faults
    assert "Take header out, and say by columns which is which" in fault
    assert cells(read(BODY, header=("text_a", "label"))) == ROWS


def test_empty_rows_beyond_a_chunk_cost_no_others() -> None:
    rows = read("text,label\n" + "some text,a\n,\n" * 25_000 + "last,b\n")
    assert rows.table.num_rows == 25_001
    assert cells(rows)[-1] == ("last", "b")
