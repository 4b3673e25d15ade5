from __future__ import annotations

from typing import Any

import pyarrow as pa

from orchestrator.analysis.page.leading import leading, ranks

TABLE = pa.table(
    {
        "task": ["a", "a", "a", "b", "b", "c"],
        "backbone": ["x"] * 6,
        "method": ["m", "m", "n", "m", "m", "m"],
        "metric": ["accuracy", "accuracy", "accuracy", "loss", "loss", "accuracy"],
        "validation_score": [0.1, 0.9, None, 0.1, 0.9, 0.5],
    }
)


def test_rows_are_ranked_within_task_and_method_in_the_direction_of_the_metric(monkeypatch: Any) -> None:
    directions = {"accuracy": True, "loss": False}
    monkeypatch.setattr("orchestrator.analysis.page.leading.higher_is_better", directions.__getitem__)
    assert ranks(TABLE) == {0: 1, 1: 0, 2: 0, 3: 0, 4: 1, 5: 0}
    assert leading(TABLE, 4)["validation_score"].to_pylist() == [0.9, None, 0.1, 0.5]


def test_backbones_are_ranked_apart() -> None:
    two = TABLE.slice(0, 2).set_column(1, "backbone", [["x", "y"]])
    assert ranks(two) == {0: 0, 1: 0}


def test_a_table_that_fits_is_whole() -> None:
    assert leading(TABLE, 6) is TABLE


def test_what_is_not_a_number_comes_after_all_scores() -> None:
    nan = float("nan")
    table = TABLE.slice(0, 3).set_column(1, "backbone", [["x"] * 3]).set_column(2, "method", [["m"] * 3])
    assert ranks(table.set_column(4, "validation_score", [[nan, 0.1, 0.9]])) == {2: 0, 1: 1, 0: 2}
