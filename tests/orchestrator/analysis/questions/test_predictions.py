"""Questions for predictions: what is given back, and every reason why there is nothing to give."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from orchestrator.analysis.questions.predictions import PredictionSource
from orchestrator.analysis.results import Results
from tests.orchestrator.analysis.conftest import Synthetic, fail
from trainables.faults import FaultsError

COLUMNS = ["trial_id", "split", "row", "row_hash", "label", "prediction", "scores", "classes"]


class Kept:
    """Holds predictions of some trials, each of a split's rows of this id, and notes what it is asked."""

    def __init__(self, rows: Mapping[str, Mapping[str, str]]) -> None:
        self.rows = rows
        self.asked: list[tuple[dict[str, str | None], str | None]] = []

    def read(self, trainings: Mapping[str, str | None], split: str | None) -> dict[str, pa.Table]:
        self.asked.append((dict(trainings), split))
        found = {}
        for trial_id in trainings:
            splits = {name: rows for name, rows in self.rows.get(trial_id, {}).items() if split in (None, name)}
            if splits:
                found[trial_id] = pa.concat_tables([self._table(trial_id, *each) for each in splits.items()])
        return found

    def why_none(self, sweep: str) -> str:
        return f"of {sweep} there never were any"

    @staticmethod
    def _table(trial_id: str, split: str, rows: str) -> pa.Table:
        return pa.table(
            {
                "trial_id": [trial_id] * 2,
                "split": [split] * 2,
                "rows": [rows] * 2,
                "row": [0, 1],
                "row_hash": ["x", "y"],
                "label": [0, 1],
                "prediction": [1, 1],
                "scores": pa.array([[-0.5, -1.0]] * 2, pa.list_(pa.float16())),
                "classes": pa.nulls(2, pa.list_(pa.int32())),
            }
        )


OPTIONS = {"method": "adapter", "adapter_size": 8, "learning_rate": 1e-3}


@pytest.fixture
def rows(synthetic: Synthetic) -> list[dict[str, Any]]:
    """Three completed trials, one that was pruned, one that failed."""
    made = synthetic.scored(OPTIONS, [0.1, 0.2, 0.3, 0.4, 0.5])
    return [*made[:3], {**made[3], "status": "pruned"}, fail(made[4])]


@pytest.fixture
def ids(rows: list[dict[str, Any]]) -> list[str]:
    return [row["trial_id"] for row in rows]


def ask(synthetic: Synthetic, rows: list[dict[str, Any]], source: PredictionSource | None) -> Results:
    made = synthetic.results(rows)
    plan = pa.table({"trial_id": [*(row["trial_id"] for row in rows), "to come"]})
    return Results(made.trials(), made.epochs(), plan, predictions=source)


def test_predictions_of_a_trial_are_of_its_last_training_and_read_when_asked_for(
    synthetic: Synthetic, rows: list[dict[str, Any]], ids: list[str]
) -> None:
    kept = Kept({ids[0]: {"validation": "v", "test": "t"}})
    results = ask(synthetic, rows, kept)
    assert kept.asked == []
    table = results.predictions(ids[0])
    assert table.column_names == COLUMNS
    assert table["split"].to_pylist() == ["validation", "validation", "test", "test"]
    assert results.predictions(ids[0], "test")["split"].to_pylist() == ["test", "test"]
    assert kept.asked[0] == ({ids[0]: rows[0]["started_at"]}, None)


def test_several_trials_come_in_the_order_asked_row_by_row(
    synthetic: Synthetic, rows: list[dict[str, Any]], ids: list[str]
) -> None:
    results = ask(synthetic, rows, Kept({trial_id: {"test": "t"} for trial_id in ids[:3]}))
    table = results.predictions_of([ids[2], ids[0]], "test")
    assert np.reshape(table["trial_id"].to_pylist(), (2, -1))[:, 0].tolist() == [ids[2], ids[0]]
    assert table["row"].to_pylist() == [0, 1, 0, 1]


def test_trials_of_different_rows_are_never_read_together(
    synthetic: Synthetic, rows: list[dict[str, Any]], ids: list[str]
) -> None:
    results = ask(synthetic, rows, Kept({ids[0]: {"test": "t"}, ids[1]: {"test": "T"}, ids[2]: {"test": "t"}}))
    with pytest.raises(FaultsError, match=f"those of {ids[1]} have other texts, labels or another order") as refusal:
        results.predictions_of(ids[:3], "test")
    assert len(refusal.value.faults) == 1
    assert results.predictions(ids[1]).num_rows == 2


def test_every_fault_is_named_at_once(synthetic: Synthetic, rows: list[dict[str, Any]], ids: list[str]) -> None:
    results = ask(synthetic, rows, Kept({ids[0]: {"test": "t"}}))
    with pytest.raises(FaultsError) as refusal:
        results.predictions_of([ids[0], ids[0], ids[3], ids[4], "to come", "nobody"])
    said = "\n".join(refusal.value.faults)
    assert len(refusal.value.faults) == 5
    for words in (
        f"every trial must stand once, but {ids[0]} stands twice",
        f"trial {ids[3]} was stopped early, and predictions are kept of completed trials alone",
        f"trial {ids[4]} failed",
        "trial to come has not ended",
        "unknown trial 'nobody'",
    ):
        assert words in said
    with pytest.raises(FaultsError, match="must name at least one trial"):
        results.predictions_of([])


def test_a_trial_of_which_nothing_is_kept_says_why(
    synthetic: Synthetic, rows: list[dict[str, Any]], ids: list[str]
) -> None:
    results = ask(synthetic, rows, Kept({}))
    sweep = rows[1]["sweep"]
    with pytest.raises(FaultsError, match=f"no predictions of trial {ids[1]}, because of {sweep} there never were any"):
        results.predictions(ids[1])
    with pytest.raises(FaultsError, match="because these results were not loaded from a store"):
        ask(synthetic, rows, None).predictions(ids[1])


def test_a_split_that_it_does_not_have_is_named_with_those_it_has(
    synthetic: Synthetic, rows: list[dict[str, Any]], ids: list[str]
) -> None:
    results = ask(synthetic, rows, Kept({ids[0]: {"validation": "v", "test": "t"}}))
    with pytest.raises(FaultsError, match=r"unknown split of trial .*'tset'; did you mean 'test'"):
        results.predictions(ids[0], "tset")
