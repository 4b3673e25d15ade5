"""Commands that only look: plan, status, report, doctor."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from orchestrator.cli import main
from orchestrator.engine_status import EngineStatus
from orchestrator.plan import plan_sweep, plan_table
from orchestrator.record import TrialRecord, TrialStatus
from orchestrator.store import Store


@pytest.fixture
def half_finished(home: Path, values: dict[str, Any]) -> Store:
    """A store of which four of six trials have a record, one of them failed."""
    plan = plan_sweep(values)
    store = Store(home / "store")
    store.create(plan.spec.to_json(), plan_table(plan))
    records = [
        TrialRecord(
            sweep=plan.spec.name,
            trial_id=trial.trial_id,
            config_id=trial.config_id,
            task=trial.task,
            backbone=trial.config.backbone,
            method=trial.config.method,
            seed=trial.config.seed,
            status=TrialStatus.FAILED if number == 3 else TrialStatus.COMPLETED,
            hyperparameters=trial.config.hyperparameters(),
            trained_params=trial.trained_params,
            trained_params_without_head=trial.trained_params_without_head,
            total_params=trial.total_params,
            metric="accuracy",
            validation_score=None if number == 3 else 0.5 + number / 10,
            test_score=None if number == 3 else 0.4 + number / 10,
            error="ValueError: no" if number == 3 else None,
            engine="host/cpu",
            examples_per_second=200.0,
            pack_size=2.0,
        )
        for number, trial in enumerate(plan.trials[:4])
    ]
    store.append(records)
    return store


def test_plan_lists_every_trial_and_its_cost_and_writes_nothing(
    home: Path, write_sweep: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["plan", write_sweep(), "--json", "--devices", "2", "--price", "3"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert (answer["num_trials"], answer["num_configurations"], answer["num_remaining"]) == (6, 3, 6)
    assert len({trial["trial_id"] for trial in answer["trials"]}) == 6
    assert {trial["adapter_size"] for trial in answer["trials"] if trial["method"] == "adapter"} == {1, 4}
    assert all(trial["trained_params"] > 0 for trial in answer["trials"])
    assert answer["estimate"]["seconds"] > 0
    assert answer["estimate"]["cost"] == pytest.approx(answer["estimate"]["seconds"] * 2 * 3 / 3600)
    assert not (home / "sweeps").exists()
    assert main(["plan", write_sweep()]) == 0
    assert "6 trials: 3 configurations, 2 seeds each" in capsys.readouterr().out


def test_plan_says_what_a_store_holds_already(
    half_finished: Store, write_sweep: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["plan", write_sweep(), "--store", half_finished.uri, "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert (answer["num_finished"], answer["num_remaining"]) == (3, 3)


def test_the_papers_sweeps_can_be_planned_without_their_data(capsys: pytest.CaptureFixture[str], home: Path) -> None:
    assert main(["plan", "houlsby_additional", "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["num_trials"] == 9180
    assert answer["estimate"]["seconds"] is None
    assert answer["missing"]


def test_status_counts_by_status_and_names_the_driver_at_work(
    half_finished: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["status", half_finished.uri, "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["counts"] == {"completed": 3, "failed": 1, "planned": 2}
    assert answer["running"] is None
    with half_finished.lock():
        assert main(["status", half_finished.uri]) == 0
        assert "Running since" in capsys.readouterr().out


def test_status_shows_what_the_engines_do_while_they_do_it_and_afterwards_how_fast_they_were(
    half_finished: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    engine = EngineStatus(engine="host/cpu", task="opinion", method="adapter", num_trials=2, examples_per_second=400.0)
    with half_finished.lock():
        half_finished.note_working([engine])
        assert main(["status", half_finished.uri]) == 0
        output = capsys.readouterr().out
        assert "as of 0 s ago" in output or "as of 1 s ago" in output
        assert "engine host/cpu: adapter on opinion, 2 trials, 400 examples/s" in output
        assert main(["status", half_finished.uri, "--json"]) == 0
        answer = json.loads(capsys.readouterr().out)
        assert answer["engines"]["engines"][0]["num_trials"] == 2
        assert answer["engines"]["age_s"] < 60
    assert main(["status", half_finished.uri, "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["engines"] is None
    (row,) = answer["throughput"]
    assert (row["engine"], row["method"], row["pack_size"]) == ("host/cpu", "adapter", 2.0)
    assert (row["examples_per_second"], row["pack_examples_per_second"]) == (200.0, 400.0)
    assert main(["status", half_finished.uri]) == 0
    output = capsys.readouterr().out
    assert "Engines" not in output
    assert "Throughput" in output


def test_a_second_driver_is_refused_with_the_first_ones_process(
    half_finished: Store, write_sweep: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    with half_finished.lock():
        assert main(["run", write_sweep(), "--store", half_finished.uri]) == 2
    assert "process" in capsys.readouterr().err


def test_report_of_a_half_finished_sweep_is_written_and_printed(
    half_finished: Store, home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["report", half_finished.uri]) == 0
    output = capsys.readouterr().out
    assert "3 completed" in output
    assert "1 failed" in output
    assert "data:image/" in (home / "store" / "report" / "report.html").read_text()


def test_doctor_finds_nothing_that_would_stop_a_sweep_here(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "--json"]) == 0
    findings = {finding["what"]: finding for finding in json.loads(capsys.readouterr().out)}
    assert {"torch", "ray", "mlflow", "device", "free memory", "free disk", "store", "tracking"} <= findings.keys()
    assert not (home / "sweeps").exists()
