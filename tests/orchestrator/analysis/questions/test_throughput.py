"""How fast the engines trained, from records."""

from __future__ import annotations

from typing import Any

import pytest

from orchestrator.analysis.results import Results
from orchestrator.analysis.text.tables import throughput_table


def test_rates_are_those_of_a_trial_and_of_its_whole_pack_by_engine_and_method(synthetic: Any) -> None:
    adapter, layers = {"method": "adapter", "adapter_size": 8}, {"method": "top_layers", "num_layers": 1}
    shared = {"learning_rate": 1e-3}
    rows = [
        synthetic.trial(synthetic.tasks[0], {**adapter, **shared}, 0, pack_size=4.0, examples_per_second=200.0),
        synthetic.trial(synthetic.tasks[0], {**adapter, **shared}, 1, pack_size=2.0, examples_per_second=300.0),
        synthetic.trial(synthetic.tasks[0], {**adapter, **shared}, 2, engine="host-b/cpu", pack_size=1.0),
        synthetic.trial(synthetic.tasks[0], {**layers, **shared}, 0, pack_size=1.0, examples_per_second=90.0),
        synthetic.trial(synthetic.tasks[0], {**layers, **shared}, 1, examples_per_second=None),
    ]
    results = synthetic.results(rows)
    answer = results.throughput().to_pylist()
    assert [(row["engine"], row["method"], row["num_trials"]) for row in answer] == [
        ("host-a/cpu", "adapter", 2),
        ("host-a/cpu", "top_layers", 1),
        ("host-b/cpu", "adapter", 1),
    ]
    assert [row["pack_size"] for row in answer] == [3.0, 1.0, 1.0]
    assert [row["examples_per_second"] for row in answer] == [250.0, 90.0, 180.0]
    assert [row["pack_examples_per_second"] for row in answer] == [700.0, 90.0, 180.0]
    shown = throughput_table(results.throughput())
    assert shown.rows[0] == ("host-a/cpu", "adapter", "2", "3.0", "250", "700")


def test_records_from_before_packs_are_trials_that_trained_alone(finished: Results) -> None:
    trials = finished.trials().drop_columns(["pack_size"])
    older = Results(trials, finished.epochs())
    assert {row["pack_size"] for row in older.throughput().to_pylist()} == {1.0}
    assert older.searched() == finished.searched()


def test_a_sweep_without_records_has_no_throughput(synthetic: Any) -> None:
    assert len(synthetic.results([]).throughput()) == 0


@pytest.mark.parametrize("question", ["best", "recommend", "trials"])
def test_a_pack_size_is_no_hyperparameter(synthetic: Any, question: str) -> None:
    rows = [synthetic.trial(synthetic.tasks[0], {"method": "layernorm", "learning_rate": 1e-3}, 0, pack_size=2.0)]
    results = synthetic.results(rows)
    assert ("pack_size" in getattr(results, question)().column_names) is (question == "trials")
