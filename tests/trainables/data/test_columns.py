"""Which columns are the texts and the label."""

from __future__ import annotations

import pytest

from trainables.data.columns import PAIRS, TEXTS, find_columns, suggestion


@pytest.mark.parametrize("text", TEXTS)
@pytest.mark.parametrize("label", ["label", "Category", " TARGET "])
def test_a_usual_name_is_found_and_said(text: str, label: str) -> None:
    columns = find_columns(["", "id", text.title(), label])
    assert dict(columns.places) == {"text_a": 2, "label": 3}
    assert columns.notes[0].startswith(f"columns: text_a is '{text.title()}'")


@pytest.mark.parametrize("pair", PAIRS[1:])
def test_a_usual_pair_is_found(pair: tuple[str, str]) -> None:
    assert dict(find_columns([pair[1], pair[0], "label", "title"]).places) == {"text_a": 1, "text_b": 0, "label": 2}


def test_our_own_names_win_and_nothing_is_said() -> None:
    columns = find_columns(["text", "label", "text_a", "score", "sentence1", "sentence2"])
    assert (dict(columns.places), columns.notes) == ({"text_a": 2, "label": 1}, ())


@pytest.mark.parametrize(
    ("names", "doubt"),
    [
        (["text", "review", "label"], "could be the text: text, review"),
        (["text", "class", "score"], "could be the label: class, score"),
        (
            ["premise", "hypothesis", "sentence1", "sentence2", "label"],
            "could be the text: sentence1, sentence2, premise, ",
        ),
        (["text", "Text ", "label"], "every column must stand once, but there are 'text', 'Text '"),
        (["text_a", "text_a", "label"], "but text_a stands twice"),
    ],
)
def test_two_readings_are_a_fault(names: list[str], doubt: str) -> None:
    with pytest.raises(ValueError, match=doubt):
        find_columns(names)


def test_a_question_by_itself_is_not_taken_since_what_it_asks_of_would_be_lost() -> None:
    assert "text_a" not in find_columns(["question", "story", "label"]).places


def test_what_is_declared_decides_alone() -> None:
    declared = {"text_a": "body", "label": "stars"}
    assert dict(find_columns(["text_a", "label", "stars", "body"], declared).places) == {"text_a": 3, "label": 2}
    with pytest.raises(ValueError, match=r"has no column 'stars', which columns of task.json names. Its columns: body"):
        find_columns(["body"], declared)


@pytest.mark.parametrize(
    ("names", "rows", "said"),
    [
        (["v1", "v2", ""], [["ham", "a text", ""], ["ham", "more", ""]] * 2, '{"text_a": "v2", "label": "..."}'),
        (["v1", "v2"], [["ham", "a text"], ["spam", "more"], ["ham", "x"]], '{"text_a": "v2", "label": "v1"}'),
        (["a text", "ham"], [["more", "ham"], ["x", "spam"]], 'as "header": ["label", "text_a", ...]'),
        (["id", "words", "x", "y"], [["1", "a text", "0", "1"]], "x, y look like a label each. Say in task.json"),
        (["", ""], [["", ""]], ""),
    ],
)
def test_names_that_tell_nothing_get_a_suggestion(names: list[str], rows: list[list[str]], said: str) -> None:
    found = suggestion(names, rows)
    assert said in found
    assert bool(found) == bool(said)
