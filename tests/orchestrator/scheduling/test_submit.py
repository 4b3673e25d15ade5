"""What travels with a submitted job."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from orchestrator.planning.plan import SweepPlan, plan_sweep
from orchestrator.scheduling import submit
from trainables.faults import FaultsError


@pytest.fixture
def plan(tiny_bert: Path, task_folder: Callable[..., Path]) -> SweepPlan:
    return plan_sweep(
        {
            "name": "sent",
            "backbone": str(tiny_bert),
            "tasks": [str(task_folder()), "toy/sentiment"],
            "methods": ["layernorm"],
            "space": {"max_length": 24},
        }
    )


def test_task_folders_travel_with_the_job_and_plan_to_the_same_trials(
    plan: SweepPlan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "job"
    folder.mkdir()
    submit.pack_job(plan, folder)
    values = json.loads((folder / "sweep.json").read_text())
    assert values["tasks"] == ["tasks/opinion", "toy/sentiment"]
    shutil.rmtree(tmp_path / "opinion")  # the cluster has no such folder
    monkeypatch.chdir(folder)
    assert {t.trial_id for t in plan_sweep(values).trials} == {t.trial_id for t in plan.trials}


def test_folders_too_large_to_send_are_refused(
    plan: SweepPlan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(submit, "MAX_UPLOAD_BYTES", 100)
    with pytest.raises(FaultsError, match="put them on storage that every node can read"):
        submit.pack_job(plan, tmp_path)


def test_records_go_to_the_heads_home_folder_unless_a_place_is_named() -> None:
    def expand(command: str) -> str:
        shown = subprocess.run(
            ["sh", "-c", command.replace("python -m adaptune", "echo", 1)],
            capture_output=True,
            text=True,
            check=True,
            env={"HOME": "/home/head", "PATH": "/usr/bin:/bin"},
        )
        return shown.stdout.strip()

    by_default = expand(submit.entrypoint("sent", None, None))
    assert "--store /home/head/sweeps/sent " in by_default
    assert by_default.endswith("--tracking-uri sqlite:////home/head/sweeps/mlflow.db")
    named = expand(submit.entrypoint("sent", "s3://bucket/a b", "http://mlflow:5000"))
    assert named.endswith("--store s3://bucket/a b --tracking-uri http://mlflow:5000")


def test_a_job_server_that_cannot_be_reached_is_one_clear_fault(plan: SweepPlan) -> None:
    with pytest.raises(FaultsError, match="job server"):
        submit.submit_job(plan, "http://127.0.0.1:9", store=None, tracking_uri=None, show=lambda text: None)
