"""Every number of the answers, against a short script that reads the Parquet files alone."""

from __future__ import annotations

import ast
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from orchestrator.analysis.results import Results
from orchestrator.run.sweep import results_of
from tests.orchestrator.analysis import recompute
from tests.orchestrator.analysis.recompute import Recomputed
from tests.predicted_sweep import write_sweep

WORDS = {"why", "note", "a", "b"}
QUESTIONS: dict[str, tuple[Callable[[Results], pa.Table], Callable[[Recomputed], list[dict[str, Any]]]]] = {
    "best": (lambda results: results.best(), Recomputed.best),
    "curve": (lambda results: results.curve(), Recomputed.curve),
    "recommend": (lambda results: results.recommend(), Recomputed.recommend),
    "compare": (
        lambda results: results.compare("adapter", "full_finetuning", margin=0.05),
        lambda script: script.compare("adapter", "full_finetuning", 0.05),
    ),
    "pareto": (lambda results: results.pareto(), Recomputed.pareto),
    "calibration": (lambda results: results.calibration(), Recomputed.calibration),
}


@pytest.fixture(scope="module")
def asked(tmp_path_factory: pytest.TempPathFactory) -> tuple[Results, Recomputed]:
    folder = tmp_path_factory.mktemp("made")
    return results_of(write_sweep(folder)), Recomputed(folder)


def test_the_script_knows_nothing_of_adaptune() -> None:
    tree = ast.parse(Path(recompute.__file__).read_text(encoding="utf-8"))
    imported = [
        (node.module or "") if isinstance(node, ast.ImportFrom) else node.names[0].name
        for node in ast.walk(tree)
        if isinstance(node, ast.Import | ast.ImportFrom)
    ]
    assert {name.split(".")[0] for name in imported} <= {"numpy", "pyarrow", *sys.stdlib_module_names}


@pytest.mark.parametrize("question", QUESTIONS)
@pytest.mark.thinned(2)
def test_every_number_is_that_of_the_script(question: str, asked: tuple[Results, Recomputed]) -> None:
    ask, compute = QUESTIONS[question]
    table, rows = ask(asked[0]), compute(asked[1])
    assert table.num_rows == len(rows) > 0
    for place, (found, expected) in enumerate(zip(table.to_pylist(), rows, strict=True)):
        for column in table.column_names:
            if column in WORDS:
                continue
            name = f"{question}, row {place}, {column}"
            if isinstance(expected[column], float):
                assert found[column] == pytest.approx(expected[column], rel=1e-6, abs=1e-7), name
            else:
                assert found[column] == expected[column], name


def test_rows_are_in_the_intervals_where_they_are_kept(asked: tuple[Results, Recomputed]) -> None:
    over = {row["task"]: row["interval_over"] for row in QUESTIONS["compare"][0](asked[0]).to_pylist()}
    assert over.pop(None) == "tasks"
    assert over.pop("old") == "seeds"
    assert set(over.values()) == {"seeds and rows"}
