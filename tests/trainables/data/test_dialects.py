"""A table written in any dialect is read back equal, or is a fault: no row is lost or changed without a word.

Few examples are tried by default; `ADAPTUNE_EXAMPLES=2000 python -m pytest tests/trainables/data/test_dialects.py
--timeout 0` tries more.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from trainables import tasks
from trainables.data.audit.examine import examine
from trainables.data.audit.suggestion import suggest
from trainables.data.audit.suggestion import written as suggestion_text
from trainables.faults import FaultsError

EXAMPLES = int(os.environ.get("ADAPTUNE_EXAMPLES", "60"))
QUOTED = re.compile(r'"([^"]|"")*"')

many = settings(
    max_examples=EXAMPLES, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
# What separates, quotes and ends lines is as common as letters.
characters = st.sampled_from('ab "",;\t|\n\r\\\'01') | st.characters(codec="utf-8", exclude_categories=["Cs"])
texts = st.text(characters, min_size=1, max_size=12).filter(lambda text: bool(text.strip()))
lines_of_text = st.text(st.sampled_from('ab ""\',;|01é'), min_size=1, max_size=12).filter(
    lambda text: bool(text.strip())
)
label_sets = st.sampled_from([("neg", "pos"), ("0", "1"), ("-1", "1"), ("1.5", "2.25"), ("007", "010"), ("a b", "c,d")])
Rows = list[tuple[str, str]]


@st.composite
def tables(draw: st.DrawFn, of: st.SearchStrategy[str] = texts) -> Rows:
    """Two rows or more, with two labels."""
    labels = draw(label_sets)
    written = draw(st.lists(of, min_size=2, max_size=8))
    return [(text, labels[place % 2]) for place, text in enumerate(written)]


class Written(NamedTuple):
    """The files of a folder, and what task.json would have to say of them."""

    content: bytes
    ending: str
    said: dict[str, Any]


@st.composite
def dialects(draw: st.DrawFn, rows: Rows) -> Written:
    """The rows as a program that quotes writes them."""
    delimiter, ending = draw(
        st.sampled_from([(",", ".csv"), (";", ".csv"), ("\t", ".csv"), ("|", ".csv"), ("\t", ".tsv")])
    )
    escapes = draw(st.booleans())
    quoting = draw(st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL]))
    encoding = draw(st.sampled_from(["utf-8", "utf-8-sig", "utf-16"]))
    is_indexed, labels_first = draw(st.booleans()), draw(st.booleans())
    sink = io.StringIO()
    writer = csv.writer(
        sink,
        delimiter=delimiter,
        quoting=quoting,
        lineterminator=draw(st.sampled_from(["\n", "\r\n"])),
        **({"escapechar": "\\", "doublequote": False} if escapes else {}),  # type: ignore[arg-type]
    )
    header = ["label", "text_a"] if labels_first else ["text_a", "label"]
    writer.writerow([""] * is_indexed + header)
    for place, (text, label) in enumerate(rows):
        writer.writerow([str(place)] * is_indexed + ([label, text] if labels_first else [text, label]))
    said = {"delimiter": delimiter, "quoting": "backslash" if escapes else "standard", "encoding": encoding}
    return Written(sink.getvalue().encode(encoding), ending, said)


def read(folder: Path, content: bytes, ending: str, said: dict[str, Any] | None = None) -> Rows | None:
    """The rows of a file as train and as validation; None where the folder is refused."""
    for path in folder.iterdir():
        path.unlink()
    (folder / "task.json").write_text(json.dumps(said or {}), encoding="utf-8")
    for split in ("train", "validation"):
        (folder / f"{split}{ending}").write_bytes(content)
    try:
        task = tasks.load(str(folder))
    except FaultsError:
        return None
    table, names = task.splits["train"], task.info.label_names
    labels = [names[label] if names else label for label in table["label"].to_pylist()]
    assert task.splits["validation"].equals(table)
    return list(zip(table["text_a"].to_pylist(), labels, strict=True))


def are_equal(found: Rows, rows: Rows) -> bool:
    """Whether rows are the same, labels that are numbers compared as numbers."""
    return [(text, number(label)) for text, label in found] == [(text, number(label)) for text, label in rows]


def number(label: Any) -> Any:
    try:
        return float(label)
    except ValueError:
        return label


@many
@given(data=st.data(), rows=tables())
@pytest.mark.thorough
def test_what_a_program_quotes_is_read_back_or_refused(data: st.DataObject, rows: Rows, tmp_path: Path) -> None:
    written = data.draw(dialects(rows))
    if written.said["quoting"] == "backslash":
        # A lone backslash looks the same in a file that escapes and in one that does not.
        assume(not any("\\" in text for text, _ in rows))
    found = read(tmp_path, written.content, written.ending)
    assert found is None or are_equal(found, rows), (found, written.content)


@many
@given(data=st.data(), rows=tables())
@pytest.mark.thorough
def test_the_suggested_task_json_reads_the_same_rows(data: st.DataObject, rows: Rows, tmp_path: Path) -> None:
    written = data.draw(dialects(rows))
    if read(tmp_path, written.content, written.ending) is None:
        return
    task = tasks.load(str(tmp_path))
    found = examine(task, backbone="minilm", max_length=16)
    assert [warning.name for warning in found.warnings]  # so few rows are odd
    values = suggest(task, {})
    for text in (suggestion_text(values), json.dumps(values | {"skip_bad_rows": True})):
        (tmp_path / "task.json").write_text(text, encoding="utf-8")
        assert tasks.load(str(tmp_path)).fingerprint == task.fingerprint


@many
@given(data=st.data(), rows=tables())
def test_what_task_json_says_of_a_dialect_leaves_no_doubt(data: st.DataObject, rows: Rows, tmp_path: Path) -> None:
    written = data.draw(dialects(rows))
    said = written.said | {"columns": {"text_a": "text_a", "label": "label"}}
    assume(not any("\r" in text for text, _ in rows))  # which Python's writer leaves bare, so that it ends a line
    found = read(tmp_path, written.content, written.ending, said)
    assert found is not None
    assert are_equal(found, rows)


@many
@given(rows=tables(lines_of_text.filter(lambda text: QUOTED.fullmatch(text) is None)), data=st.data())
def test_what_nobody_quotes_is_read_back_or_refused(rows: Rows, data: st.DataObject, tmp_path: Path) -> None:
    """As written by hand, or as GLUE's files: a quotation mark is a character, even one that begins a text."""
    delimiter, ending = data.draw(st.sampled_from([(",", ".csv"), ("\t", ".tsv"), (";", ".csv")]))
    rows = [row for row in rows if delimiter not in row[0] + row[1]]
    assume(len(rows) > 1 and len({label for _, label in rows}) > 1)
    lines = [delimiter.join(row) for row in [("text_a", "label"), *rows]]
    found = read(tmp_path, "".join(f"{line}\n" for line in lines).encode(), ending)
    assert found is None or are_equal(found, rows), found


@many
@given(rows=tables(), data=st.data())
def test_json_is_read_back(rows: Rows, data: st.DataObject, tmp_path: Path) -> None:
    is_ascii, ending = data.draw(st.booleans()), data.draw(st.sampled_from([".jsonl", ".json", ".ndjson", ".jsonl.gz"]))
    objects = [{"text_a": text, "label": label} for text, label in rows]
    content = "".join(json.dumps(row, ensure_ascii=is_ascii) + "\n" for row in objects)
    if ending == ".json":
        content = json.dumps(objects, ensure_ascii=is_ascii)
    found = read(tmp_path, gzip.compress(content.encode()) if ending.endswith(".gz") else content.encode(), ending)
    assert found is not None
    assert are_equal(found, rows)


@many
@given(rows=tables(), data=st.data())
def test_a_damaged_file_gives_its_rows_or_a_fault(rows: Rows, data: st.DataObject, tmp_path: Path) -> None:
    """A quotation mark put anywhere into a sound file changes at most the row it stands in."""
    sink = io.StringIO()
    csv.writer(sink, lineterminator="\n").writerows([("text_a", "label"), *rows])
    whole = sink.getvalue()
    place = data.draw(st.integers(len("text_a,label\n"), len(whole)))
    found = read(tmp_path, (whole[:place] + '"' + whole[place:]).encode(), ".csv")
    if found is not None:
        assert len(found) == len(rows), found
        changed = [ours for ours, theirs in zip(found, rows, strict=True) if not are_equal([ours], [theirs])]
        assert len(changed) <= 1, changed


@pytest.mark.parametrize("others", [["one,pos"], ["one,pos", "two,neg"] * 30], ids=["few rows", "many rows"])
def test_a_mark_that_never_closes_swallows_nothing(others: Sequence[str], tmp_path: Path) -> None:
    rows = ["text_a,label", *others, '"three,neg', "four,pos", 'five is 12" wide,neg']
    found = read(tmp_path, "\n".join(rows).encode(), ".csv")
    assert found is None or [text for text, _ in found[-3:]] == ['"three', "four", 'five is 12" wide']
