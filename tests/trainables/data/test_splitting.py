"""Rows without splits, cut by the paper's rule."""

from __future__ import annotations

import pyarrow as pa
import pytest

from trainables.data.splitting import split_rows, split_sizes
from trainables.tasks.additional import PAPER_TASKS


def table(rows: int) -> pa.Table:
    return pa.table({"text_a": [f"text {row}" for row in range(rows)], "label": [row % 2 for row in range(rows)]})


@pytest.mark.parametrize("name", PAPER_TASKS)
def test_the_rule_gives_the_sizes_of_table_3(name: str) -> None:
    """Houlsby et al. 2019: floor(0.8 N), floor((N - train) / 2), the rest, on every row; so a slip breaks it too."""
    task = PAPER_TASKS[name]
    sizes = (task.train, task.validation, task.test)
    assert split_sizes(sum(sizes)) == sizes


def test_every_row_falls_to_one_split() -> None:
    splits = split_rows(table(1003))
    assert [part.num_rows for part in splits.values()] == [802, 100, 101]
    texts = [text for part in splits.values() for text in part["text_a"].to_pylist()]
    assert sorted(texts) == sorted(table(1003)["text_a"].to_pylist())
    for part in splits.values():  # a text keeps its label
        assert all(int(row["text_a"].removeprefix("text ")) % 2 == row["label"] for row in part.to_pylist())


def test_which_row_falls_where_is_the_same_everywhere_and_forever() -> None:
    splits = split_rows(table(20))
    assert {name: [int(text[5:]) for text in part["text_a"].to_pylist()] for name, part in splits.items()} == {
        "train": [0, 2, 11, 17, 9, 1, 8, 13, 5, 16, 19, 4, 3, 12, 10, 15],
        "validation": [14, 6],
        "test": [18, 7],
    }


def test_too_few_rows_are_refused_with_the_rule() -> None:
    assert [part.num_rows for part in split_rows(table(6)).values()] == [4, 1, 1]
    with pytest.raises(ValueError, match="at least 6 rows to be cut into three splits, but has 5"):
        split_rows(table(5))


def test_a_train_split_of_one_label_is_refused() -> None:
    rare = pa.table({"text_a": [f"{row}" for row in range(20)], "label": [0] * 20})
    with pytest.raises(ValueError, match="fall to train have one label"):
        split_rows(rare)
