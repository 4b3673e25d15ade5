"""The pages about sequences: their file is one, and the numbers are those of the record that lies beside them."""

from __future__ import annotations

from pathlib import Path

import pyarrow.csv
import pytest

from orchestrator.analysis.sequences import CELLS, SequenceResults
from orchestrator.analysis.text.forgetting import markdown, points
from orchestrator.spec.sequence import parse_sequence
from orchestrator.spec.sweep_file import read_sweep
from tests.docs.blocks import ROOT, blocks_of

FIVE = ROOT / "docs" / "sequence"


@pytest.fixture(scope="module")
def results() -> SequenceResults:
    """What the kept evaluations of the five tasks say."""
    options = pyarrow.csv.ConvertOptions(column_types=CELLS, strings_can_be_null=True)
    return SequenceResults(pyarrow.csv.read_csv(FIVE / "cells.csv", convert_options=options))


def test_the_file_of_the_guide_is_a_sequence(tmp_path: Path) -> None:
    (block,) = [block for block in blocks_of(ROOT / "docs" / "sequences.md") if block.language == "yaml"]
    (tmp_path / "five.yaml").write_text(block.text, encoding="utf-8")
    spec, faults = parse_sequence(read_sweep(str(tmp_path / "five.yaml")))
    assert faults == []
    assert spec.sequential == ("full_finetuning",)


def test_the_tables_of_the_five_tasks_are_those_of_their_record(results: SequenceResults) -> None:
    page = (FIVE / "README.md").read_text(encoding="utf-8")
    missing = [part for part in markdown(results).strip().split("\n\n") if part not in page]
    assert missing == []


def test_the_words_about_the_five_tasks_say_what_their_record_says(results: SequenceResults) -> None:
    page = " ".join((FIVE / "README.md").read_text(encoding="utf-8").split())
    found = {(row["method"], row["measure"]): points(row) for row in results.measures().to_pylist()}
    cells = {
        (row["method"], row["after"], row["place"]): f"{100 * row['mean']:.1f}" for row in results.matrix().to_pylist()
    }
    own, one = "adapter", "full_finetuning"
    for sentence in (
        f"adapters score {found[own, 'average_score']} points on average, as when each was learned",
        f"on and on scores {found[one, 'average_score']}: it has forgotten {found[one, 'forgetting']} points",
        f"in {cells[one, 2, 2]} % of the messages right after that is learned, and in {cells[one, 3, 2]} % after",
        f"fall to {cells[one, 2, 1]} after the second task, and are at {cells[one, 5, 1]} after the fifth",
        f"that went on ({cells[one, 5, 5]}) than by an adapter on the untouched backbone ({cells[own, 5, 5]})",
    ):
        assert sentence in page
    assert found[own, "average_score"] == found[own, "learning_score"]


def test_adapters_of_the_five_tasks_stay_to_the_last_bit(results: SequenceResults) -> None:
    cells = [row for row in results.cells().to_pylist() if row["method"] == "adapter"]
    columns: dict[tuple[int, str], set[object]] = {(row["seed"], row["task"]): set() for row in cells}
    for row in cells:
        columns[row["seed"], row["task"]].add((row["score"], row["loss"], row["outputs_sha256"]))
    assert len(columns) >= 10
    assert all(len(found) == 1 for found in columns.values())
    assert len({row["evaluated_at"] for row in cells}) == len(cells)
