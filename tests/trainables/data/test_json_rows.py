"""Rows in the shapes of JSON that programs write: lists, columns, rows by number, and one object that holds them."""

from __future__ import annotations

import json
from typing import Any

import pytest

from trainables.data.json_rows import read_json
from trainables.data.reading import Format, Rows

ROWS = [{"text": "one", "label": "no"}, {"text": "two", "label": "yes"}]
TEXTS, LABELS = ["one", "two"], ["no", "yes"]


def read(content: str) -> Rows:
    return read_json(content.splitlines(keepends=True), Format())


@pytest.mark.parametrize(
    "content",
    [
        "".join(json.dumps(row) + "\n" for row in ROWS),
        json.dumps(ROWS),
        json.dumps(ROWS, indent=2),
        "".join(json.dumps(row, indent=2) + "\n" for row in ROWS),
        ",\n".join(map(json.dumps, ROWS)) + ",\n",
        json.dumps({"text": {"0": "one", "1": "two"}, "label": {"0": "no", "1": "yes"}}),
        json.dumps({"text": TEXTS, "label": LABELS}, indent=1),
        json.dumps({"columns": ["text", "label"], "index": [0, 1], "data": [["one", "no"], ["two", "yes"]]}),
        json.dumps({"0": ROWS[0], "1": ROWS[1]}),
        json.dumps({"schema": {"fields": []}, "data": ROWS}),
        json.dumps({"version": 1, "examples": ROWS}),
    ],
)
def test_every_shape_gives_the_same_rows(content: str) -> None:
    rows = read(content)
    assert (rows.table["text_a"].to_pylist(), rows.table["label"].to_pylist()) == (TEXTS, LABELS)
    assert not rows.faults


def test_one_row_is_one_row() -> None:
    assert read(json.dumps(ROWS[0])).table.num_rows == 1


def test_several_lists_of_rows_are_refused_with_a_remedy() -> None:
    with pytest.raises(ValueError, match=r"several lists of rows \(train, test\): save each as a file of its own"):
        read(json.dumps({"train": ROWS, "test": ROWS}))


def test_a_key_that_stands_twice_in_a_list_is_refused_as_in_a_line() -> None:
    with pytest.raises(ValueError, match="every object must have a key once, but 1 have one twice"):
        read('[{"text": "one", "label": "no", "label": "yes"}]')


@pytest.mark.parametrize(
    ("row", "hint"),
    [
        ({"prompt": "a text of words", "completion": "no"}, ""),
        ({"messages": [{"role": "user"}]}, None),
    ],
)
def test_names_that_tell_nothing_give_a_hint(row: dict[str, Any], hint: str | None) -> None:
    rows = read("".join(json.dumps({**row, "completion": label}) + "\n" for label in ("no", "yes", "no")))
    assert ('"text_a": "prompt", "label": "completion"' in rows.hint) is (hint is not None)
