"""What each node trained, from records."""

from __future__ import annotations

from typing import Any

import pytest

from orchestrator.analysis.text.tables import node_shares_table


def test_trials_are_counted_by_the_node_of_their_engine_whatever_came_of_them(synthetic: Any) -> None:
    config = {"method": "layernorm", "learning_rate": 1e-3}
    engines = ["a/cuda:0", "a/cuda:1", "b/cpu", "a/cuda:0", None]
    rows = [
        synthetic.trial(synthetic.tasks[0], config, seed, engine=engine, duration_s=10.0)
        for seed, engine in enumerate(engines)
    ]
    shares = synthetic.results(rows).node_shares()
    assert [tuple(row.values()) for row in shares.to_pylist()] == [("a", 2, 3, 0.75, 30.0), ("b", 1, 1, 0.25, 10.0)]
    assert sum(shares["trials_share"].to_pylist()) == pytest.approx(1)
    assert node_shares_table(shares).rows == (("a", "3", "75%", "30 s"), ("b", "1", "25%", "10 s"))
    assert len(synthetic.results([]).node_shares()) == 0
