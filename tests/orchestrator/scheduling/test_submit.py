"""What travels with a submitted job."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from orchestrator.planning.plan import SweepPlan, plan_sweep
from orchestrator.scheduling import submit
from orchestrator.scheduling.early_end import Budget
from orchestrator.scheduling.jobs import JobServer
from tests.orchestrator.scheduling.fake_job_client import FakeJobClient
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
    assert values["tasks"] == ["tasks/0/opinion", "toy/sentiment"]
    shutil.rmtree(tmp_path / "opinion")  # the cluster has no such folder
    monkeypatch.chdir(folder)
    assert {t.trial_id for t in plan_sweep(values).trials} == {t.trial_id for t in plan.trials}


def test_task_folders_of_an_adaptive_search_travel_too(
    tiny_bert: Path, task_folder: Callable[..., Path], tmp_path: Path
) -> None:
    plan = plan_sweep(
        {
            "name": "sent",
            "backbone": str(tiny_bert),
            "tasks": [str(task_folder())],
            "methods": ["layernorm"],
            "space": {"max_length": 24, "learning_rate": {"loguniform": [1e-4, 1e-2]}},
            "search": {"algorithm": "tpe", "num_samples": 4},
        }
    )
    (folder := tmp_path / "job").mkdir()
    submit.pack_job(plan, folder)
    assert json.loads((folder / "sweep.json").read_text())["tasks"] == ["tasks/0/opinion"]
    assert list((folder / "tasks" / "0" / "opinion").iterdir())


@pytest.mark.parametrize("name", ["/{root}/outside", "../../outside", "a\nb", "x" * 300, "."])
def test_no_name_of_a_task_is_a_path_outside_the_job(
    name: str, tiny_bert: Path, task_folder: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    named, unnamed = task_folder(name="one"), task_folder(name="two", rows=40)
    (unnamed / "task.json").unlink()  # its name is the folder's
    name = name.replace("/{root}", str(tmp_path))
    (named / "task.json").write_text(json.dumps({**json.loads((named / "task.json").read_text()), "name": name}))
    tasks = [str(named), str(unnamed)]
    plan = plan_sweep(
        {
            "name": "sent",
            "backbone": str(tiny_bert),
            "tasks": tasks,
            "methods": ["layernorm"],
            "space": {"max_length": 24},
        }
    )
    (folder := tmp_path / "deep" / "job").mkdir(parents=True)
    before = sorted(tmp_path.rglob("*"))
    submit.pack_job(plan, folder)
    assert [path for path in sorted(tmp_path.rglob("*")) if path not in before and folder not in path.parents] == []
    monkeypatch.chdir(folder)
    sent = plan_sweep(json.loads((folder / "sweep.json").read_text()))
    assert [each.task.info.name for each in sent.task_methods] == [name, "two"]
    assert {t.trial_id for t in sent.trials} == {t.trial_id for t in plan.trials}


def test_folders_too_large_to_send_are_refused(
    plan: SweepPlan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(submit, "MAX_UPLOAD_BYTES", 100)
    with pytest.raises(FaultsError, match="put them on storage that every node can read"):
        submit.pack_job(plan, tmp_path)


def test_files_in_folders_of_a_task_folder_count_too(
    plan: SweepPlan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(submit, "MAX_UPLOAD_BYTES", 100_000)
    (inner := Path(plan.spec.tasks[0]) / "raw").mkdir()
    (inner / "dump.bin").write_bytes(bytes(200_000))
    with pytest.raises(FaultsError, match="at most 0 MiB together"):
        submit.pack_job(plan, tmp_path)


def test_records_go_to_the_heads_home_folder_unless_a_place_is_named() -> None:
    def expand(command: str) -> str:
        tell = "sh -c 'echo $MLFLOW_TRACKING_URI \"$@\"' -"
        shown = subprocess.run(
            ["sh", "-c", command.replace("python -m adaptune", tell, 1)],
            capture_output=True,
            text=True,
            check=True,
            env={"HOME": "/home/head", "PATH": "/usr/bin:/bin"},
        )
        return shown.stdout.strip()

    by_default = expand(submit.entrypoint("sent", None, None))
    assert by_default.endswith(" --store /home/head/sweeps/sent")
    assert by_default.startswith("sqlite:////home/head/sweeps/mlflow.db run sweep.json")
    named = expand(submit.entrypoint("sent", "s3://bucket/a b", "http://mlflow:5000"))
    assert named.endswith("--store s3://bucket/a b --tracking-uri http://mlflow:5000")


def test_budgets_and_a_take_over_go_to_the_run_as_they_were_given() -> None:
    budget = Budget(max_hours=1.5, max_failures=3, max_cost=20.5, price=2.5)
    command = submit.entrypoint("sent", "/data/sent", "http://mlflow:5000", budget=budget, take_over=True)
    assert command == (
        "python -m adaptune run sweep.json --address auto --store /data/sent --max-hours 1.5 --max-failures 3 "
        "--max-cost 20.5 --price 2.5 --take-over --tracking-uri http://mlflow:5000"
    )


def test_the_users_word_that_nothing_else_runs_on_a_store_goes_with_the_job() -> None:
    assert "--only-driver" not in submit.entrypoint("sent", "gs://bucket/sent", None)
    assert submit.entrypoint("sent", "gs://bucket/sent", None, only_driver=True).endswith(" --only-driver")


def test_a_job_is_found_again_by_its_metadata_and_is_given_time_to_end_in_order(plan: SweepPlan) -> None:
    client = FakeJobClient()
    server = JobServer(client, "http://head:8265")
    places = "s3://bucket/a?endpoint_override=x", "http://mlflow:5000"
    job = submit.submit_job(plan, server, store=places[0], tracking_uri=places[1])
    [sent] = client.submitted
    assert re.fullmatch(r"sent-[0-9a-f]{6}", job)
    assert sent["metadata"] == {"adaptune.sweep": "sent", "adaptune.store": "s3://bucket/a"}
    assert int(sent["runtime_env"]["env_vars"]["RAY_JOB_STOP_WAIT_TIME_S"]) >= 600
    assert server.find(job).sweep == "sent"


def test_a_store_in_the_jobs_own_working_folder_is_refused(plan: SweepPlan) -> None:
    server = JobServer(client := FakeJobClient(), "http://head:8265")
    with pytest.raises(FaultsError, match="must be a URI or an absolute path of the cluster's head"):
        submit.submit_job(plan, server, store="sweeps/here", tracking_uri=None)
    assert client.submitted == []


def test_the_job_says_where_records_go_by_default() -> None:
    assert submit.shown_store("sent", None) == "~/sweeps/sent"
    assert submit.shown_store("sent", "/data/a?b") == "/data/a?b"
