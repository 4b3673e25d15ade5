from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from orchestrator.analysis.missing import missing_of
from orchestrator.analysis.report import write_report
from tests.orchestrator.analysis.conftest import costs_of
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


@pytest.mark.parametrize("question", ["pareto", "trade_off"])
@pytest.mark.parametrize("cost", ["trained_params_without_head", "latency_ms"])
def test_a_cost_that_is_known_of_no_configuration_is_refused_and_of_some_it_is_said_of_how_many_not(
    question: str, cost: str, synthetic: Any
) -> None:
    rows = synthetic.rows(tasks=synthetic.tasks[:2])
    costly = {row["config_id"] for row in rows if row["method"] == "adapter"}
    unknown = [{**row, "trained_params_without_head": None} for row in rows]
    some = [row if row["config_id"] in costly else other for row, other in zip(rows, unknown, strict=True)]
    whole, none = [row for row in rows if row["config_id"] in costly], costs_of([{**rows[0], "config_id": "other"}])

    with pytest.raises(FaultsError, match=f"{cost}: must have been (recorded|measured), but"):
        getattr(synthetic.results(unknown, inference_costs=none), question)(cost)
    results = synthetic.results(some, inference_costs=costs_of(whole))
    answer = getattr(results, question)(cost)
    assert set(answer["config_id"].to_pylist()) <= costly
    assert len(answer)
    (note,) = missing_of(answer)
    assert note.startswith(f"{cost} of 12 configurations, which is not ")
    complete = getattr(synthetic.results(whole, inference_costs=costs_of(whole)), question)(cost)
    assert missing_of(complete) == []


def test_a_report_and_a_paper_do_without_parameters_that_are_not_recorded(synthetic: Any, tmp_path: Path) -> None:
    sizes = dict.fromkeys(("trained_params", "trained_params_without_head", "total_params"))
    results = synthetic.results([{**row, **sizes} for row in synthetic.rows(tasks=synthetic.tasks[:2])])
    assert not any("pareto" in path.name for path in write_report(results, tmp_path, title="s"))
    assert not any("pareto" in path.name for path in results.paper(tmp_path / "paper"))
    assert "trained\\_params: must have been recorded" in (tmp_path / "paper" / "missing.md").read_text()
