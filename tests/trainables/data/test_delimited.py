"""Delimited files: which rows are read, which are faults, and what is said of both."""

from __future__ import annotations

from typing import Any

import pytest

from trainables.data.delimited import read_delimited
from trainables.data.reading import LINE, Format, Rows

Cells = list[tuple[str, str]]


def read(content: str, delimiter: str = ",", **asked: Any) -> Rows:
    return read_delimited(content.splitlines(keepends=True), Format(**asked), delimiter)


def cells(rows: Rows) -> Cells:
    return list(zip(rows.table["text_a"].to_pylist(), rows.table["label"].to_pylist(), strict=True))


def lines(rows: Rows) -> list[int]:
    return rows.table[LINE].to_pylist()


class TestLines:
    def test_a_row_is_named_by_the_line_it_begins_in(self) -> None:
        rows = read('\ntext_a,label\none,a\n\n"two\nlines, yes",b\nthree,a\n')
        assert cells(rows) == [("one", "a"), ("two\nlines, yes", "b"), ("three", "a")]
        assert lines(rows) == [3, 5, 7]

    def test_rows_beyond_a_chunk_keep_their_lines(self) -> None:
        content = "text_a,label\n" + "some text,a\n" * 25_000 + "one,too,many\n" + "more text,b\n" * 3
        rows = read(content)
        assert lines(rows) == [*range(2, 25_002), *range(25_003, 25_006)]
        assert "line 25002 of 25,004 rows has not (line 25002 has 3: 'one,too,many')" in rows.faults[0]


class TestQuotationMarks:
    def test_one_that_opens_nothing_is_a_character_where_the_row_is_whole(self) -> None:
        rows = read('text_a,label\none,a\n"two,b\nthree,b\nfour "so",a\n"No" he said,a\n')
        assert cells(rows) == [("one", "a"), ('"two', "b"), ("three", "b"), ('four "so"', "a"), ('"No" he said', "a")]
        assert not rows.faults
        assert rows.notes == ["a quotation mark that opens nothing is taken for a character: 2 lines (3, 6)"]

    def test_a_row_with_a_label_of_nobody_is_a_fault(self) -> None:
        (fault,) = read('text_a,label\none,a\n"two, or "so,b\nthree,b\n').faults
        assert (
            "must open and close a whole text, but does not in line 3 of 3 rows (line 3: '\"two, or \"so,b')" in fault
        )

    def test_lines_that_would_be_rows_are_not_swallowed(self) -> None:
        content = 'text_a,label\none,a\n"two,b\nthree, or so,b\nfour",a\nfive,b\n'
        assert "(3-5; 3 in all) look like rows of their own" in read(content).faults[0]
        assert cells(read(content, quoting="standard")) == [
            ("one", "a"),
            ("two,b\nthree, or so,b\nfour", "a"),
            ("five", "b"),
        ]
        assert "line 4 has 3" in read(content, quoting="none").faults[0]

    def test_labels_that_only_swallowed_rows_have_are_known_too(self) -> None:
        assert "(3-5; 3 in all)" in read('text_a,label\none,no\n"two,yes\nthree,no\n",yes\n').faults[0]

    def test_scores_are_known_labels_too(self) -> None:
        sound = "".join(f"text {row},{row / 8}\n" for row in range(60))
        rows = read(f'text_a,label\n{sound}"one,99.5\nlast,1\n')
        assert cells(rows)[-2:] == [('"one', "99.5"), ("last", "1")]

    def test_texts_of_several_lines_are_read_where_no_line_is_a_row(self) -> None:
        rows = read('label,text_a\n0,"Dear all,\n\n1. yes, 0"\n1,two\n0,three\n')
        assert cells(rows)[0] == ("Dear all,\n\n1. yes, 0", "0")
        assert not rows.faults


class TestDialects:
    def test_backslashes_are_taken_off_where_they_are_for_quotation_marks(self) -> None:
        rows = read('text_a,label\n"he said \\"no\\", then",a\n"a \\\\ b",b\n')
        assert cells(rows) == [('he said "no", then', "a"), ("a \\ b", "b")]

    def test_backslashes_that_may_be_of_the_text_leave_doubt(self) -> None:
        content = 'text_a,label\nprint(\\"hi\\"),a\nplain,b\n'
        assert "has a backslash before a quotation mark in line 2" in read(content).faults[0]
        assert cells(read(content, quoting="standard"))[0] == ('print(\\"hi\\")', "a")
        assert cells(read(content, quoting="backslash"))[0] == ('print("hi")', "a")
        tabs = content.replace(",", "\t")
        assert "has a backslash before a quotation mark in line 2" in read(tabs, "\t").faults[0]
        assert cells(read(tabs, "\t", quoting="none"))[0] == ('print(\\"hi\\")', "a")
        assert cells(read(tabs.replace("plain", '12" wide'), "\t"))[0] == ('print(\\"hi\\")', "a")
        assert not read('text_a,label\n"print(\\""hi\\"")",a\nplain,b\n').faults

    @pytest.mark.parametrize(
        "line", ['"a ""b"" c"\tx\n', '"tab\there"\tx\n', '"line\nhere"\tx\n'], ids=["mark", "tab", "line end"]
    )
    def test_tab_separated_texts_that_needed_quoting_are_read_without_it(self, line: str) -> None:
        rows = read(f"text_a\tlabel\n{line}plain\ty\n", "\t")
        assert cells(rows)[0][0] in ('a "b" c', "tab\there", "line\nhere")
        assert rows.notes
        assert not rows.faults

    def test_tab_separated_texts_all_in_marks_are_read_without(self) -> None:
        assert cells(read('"text_a"\t"label"\n"one"\t1\n"two"\t2\n', "\t")) == [("one", "1"), ("two", "2")]

    @pytest.mark.parametrize("text", ['"Hello."', 'he said "no"', '"open', '12" wide', '"a" and "b"'])
    def test_tab_separated_texts_keep_marks_that_no_program_wrote(self, text: str) -> None:
        assert cells(read(f"text_a\tlabel\n{text}\tx\nplain\ty\n", "\t"))[0] == (text, "x")

    def test_blanks_after_delimiters_are_none_of_a_quoted_text(self) -> None:
        assert cells(read('"text_a", "label"\n"one", "a"\n"two, too", "b"\n')) == [("one", "a"), ("two, too", "b")]

    @pytest.mark.parametrize("delimiter", [";", "\t", "|"])
    def test_another_delimiter_is_found_and_said(self, delimiter: str) -> None:
        rows = read(f"text_a{delimiter}label\none, two{delimiter}a\nthree{delimiter}b\n")
        assert cells(rows) == [("one, two", "a"), ("three", "b")]
        assert rows.notes[0].startswith("its columns are separated by ")

    def test_a_file_without_header_is_read_by_the_names_of_task_json(self) -> None:
        rows = read("x1\t0\t\tone\nx2\t1\t*\ttwo\n", "\t", header=("id", "label", "mark", "text_a"))
        assert cells(rows) == [("one", "0"), ("two", "1")]
        assert lines(rows) == [1, 2]


class TestBadRows:
    def test_they_are_left_out_where_asked_and_counted(self) -> None:
        rows = read('text_a,label\none,a\ntwo\nthree,b,c\n"four" x", y,a\nfive,b\n', skip_bad_rows=True)
        assert cells(rows) == [("one", "a"), ("five", "b")]
        assert lines(rows) == [2, 6]
        assert (rows.skipped, rows.notes[-1]) == (3, "left out 3 broken rows: 3 lines (3, 4, 5)")
        assert not rows.faults

    def test_a_carriage_return_that_cuts_a_row_is_a_fault(self) -> None:
        (fault,) = read("text_a,label\none,a\n\rtwo,b\n").faults
        assert fault.startswith("a carriage return (\\r) cuts line 3")
        assert not read("text_a,label\rone,a\rtwo,b\r").faults

    def test_a_text_may_be_longer_than_the_csv_module_s_limit(self) -> None:
        assert len(cells(read(f"text_a,label\n{'x' * 200_000},a\ny,b\n"))[0][0]) == 200_000
