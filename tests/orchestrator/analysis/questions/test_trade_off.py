from __future__ import annotations

from typing import Any

import pytest

from tests.orchestrator.analysis.large_sweep import TASKS, large_results, large_rows
from trainables.faults import FaultsError


def is_beaten(row: dict[str, Any], others: list[dict[str, Any]]) -> bool:
    return any(
        other["cost"] <= row["cost"]
        and other["validation_mean"] >= row["validation_mean"]
        and (other["cost"], other["validation_mean"]) != (row["cost"], row["validation_mean"])
        for other in others
    )


@pytest.mark.parametrize("cost", ["trained_params", "duration_s"])
def test_the_front_is_what_no_other_beats(cost: str) -> None:
    rows = large_results(large_rows(TASKS[:2], ("adapter", "layernorm", "top_layers"))).trade_off(cost).to_pylist()
    for row in rows:
        others = [other for other in rows if other["task"] == row["task"]]
        assert row["cost"] == row[cost]
        assert row["is_on_front"] == (not is_beaten(row, others))


def test_what_has_fewer_seeds_does_not_compete_and_an_unknown_cost_is_refused() -> None:
    rows = large_rows(TASKS[:1], ("layernorm",))
    lucky = rows[0]["config_id"]
    rows = [{**row, "validation_score": 0.99} if row["config_id"] == lucky else row for row in rows]
    rows = [row for row in rows if row["config_id"] != lucky or row["seed"] == 0]
    table = large_results(rows).trade_off().to_pylist()
    assert not next(row for row in table if row["config_id"] == lucky)["is_on_front"]
    with pytest.raises(FaultsError, match="trained_param"):
        large_results(rows).trade_off("trained_param")
