"""Sweeps that run as jobs of a cluster, as a user meets them; the cluster is a list in memory."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from ray.dashboard.modules.job.pydantic_models import JobDetails
from ray.job_submission import JobStatus

from orchestrator.cli import jobs as commands
from orchestrator.cli import main
from orchestrator.scheduling import jobs
from tests.orchestrator.cli.conftest import WriteSweep, last_json
from tests.orchestrator.scheduling.fake_job_client import FakeJobClient, job_details

HEAD = ["--address", "http://head:8265"]
LOG = "6 trials planned\n2 engines ready on vm\n4/6 trials done, 2 running, 0 failed\n"


@pytest.fixture
def client(monkeypatch: pytest.MonkeyPatch) -> FakeJobClient:
    """The client that every command gets, whatever the address."""
    for variable in jobs.ADDRESS_VARIABLES:
        monkeypatch.delenv(variable, raising=False)
    made = FakeJobClient()
    monkeypatch.setattr(jobs, "connect", lambda address: jobs.JobServer(made, jobs.masked(address)))
    monkeypatch.setattr(jobs, "_RETRY_S", 0.0)
    monkeypatch.setattr(commands, "_ASK_EVERY_S", 0.0)
    return made


def a_job(job_id: str, status: JobStatus = JobStatus.RUNNING, **fields: Any) -> JobDetails:
    metadata = {"adaptune.sweep": job_id.partition("-")[0], "adaptune.store": "~/sweeps/mine"}
    return job_details(job_id, status, metadata=metadata, **fields)


def test_a_submitted_sweep_is_followed_and_ends_the_command_as_it_ends(
    client: FakeJobClient, write_sweep: WriteSweep, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("secrets.token_hex", lambda size: "abc")
    client.logs["small-abc"] = LOG + "6 trials: 5 completed, 1 failed.\n"
    client.ends_as = JobStatus.FAILED
    monkeypatch.setattr(client, "submit_job", lambda **job: _submit_that_fails(client, **job))
    assert main(["submit", write_sweep(), *HEAD]) == 1
    out = capsys.readouterr().out
    assert out.startswith("Job small-abc is submitted to http://head:8265.\n" + client.logs["small-abc"])
    assert out.endswith("Job small-abc has ended: failed (exit status 1).\n")


def _submit_that_fails(client: FakeJobClient, **job: Any) -> str:
    client.jobs.append(job_details(job["submission_id"], metadata=job["metadata"], driver_exit_code=1))
    return str(job["submission_id"])


def test_ctrl_c_leaves_the_job_running_and_says_how_to_come_back(
    client: FakeJobClient, write_sweep: WriteSweep, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(jobs.JobServer, "follow", interrupted)
    assert main(["submit", write_sweep(), *HEAD]) == 130
    out = capsys.readouterr().out
    [job] = [job.submission_id for job in client.jobs]
    assert client.stopped == []
    for command in (f"status {job}", f"logs {job} --follow", f"stop {job}", "jobs"):
        assert f"adaptune {command} --address http://head:8265" in out


def test_detached_it_returns_once_the_trials_are_planned(
    client: FakeJobClient, write_sweep: WriteSweep, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = iter(["", "", "12 trials planned, 2 of them finished earlier, 10 to train\n"])
    last = ""

    def log(job_id: str) -> str:
        nonlocal last
        last = next(asked, last)
        return last

    monkeypatch.setattr(client, "get_job_logs", log)
    assert main(["submit", write_sweep(), *HEAD, "--detach", "--json"]) == 0
    captured = capsys.readouterr()
    answer = last_json(captured.out)
    assert (answer["sweep"], answer["status"], answer["exit_status"]) == ("small", "running", None)
    assert (answer["trials_done"], answer["trials_planned"]) == (2, 12)
    assert f"adaptune stop {answer['job']} --address http://head:8265" in captured.err


def test_detached_a_sweep_that_its_cluster_refuses_ends_the_command_with_the_reason(
    client: FakeJobClient, write_sweep: WriteSweep, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(**job: Any) -> str:
        details = job_details(job["submission_id"], JobStatus.FAILED, metadata=job["metadata"], driver_exit_code=2)
        client.jobs.append(details)
        return str(job["submission_id"])

    monkeypatch.setattr(client, "submit_job", refused)
    monkeypatch.setattr(client, "get_job_logs", lambda job_id: "small: 1 fault\n  - the backbone must be there\n")
    assert main(["submit", write_sweep(), *HEAD, "--detach"]) == 2
    out = capsys.readouterr().out
    assert "the backbone must be there" in out
    assert out.endswith("has ended: failed (exit status 2, a fault in what was given).\n")


def test_detached_a_job_that_does_not_begin_is_not_waited_for_without_end(
    client: FakeJobClient, write_sweep: WriteSweep, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def submit(**job: Any) -> str:
        client.jobs.append(job_details(job["submission_id"], JobStatus.PENDING, metadata=job["metadata"]))
        return str(job["submission_id"])

    monkeypatch.setattr(client, "submit_job", submit)
    monkeypatch.setattr(commands, "BEGUN_WITHIN_S", 0.05)
    assert main(["submit", write_sweep(), *HEAD, "--detach", "--json"]) == 0
    captured = capsys.readouterr()
    assert json.loads(captured.out)["status"] == "pending"
    assert "goes on without this terminal" in captured.err


def test_detached_a_cluster_that_is_lost_leaves_the_job_and_says_how_to_come_back(
    client: FakeJobClient, write_sweep: WriteSweep, capsys: pytest.CaptureFixture[str]
) -> None:
    client.silences = 1
    assert main(["submit", write_sweep(), *HEAD, "--detach"]) == commands.UNKNOWN_END
    captured = capsys.readouterr()
    assert "does not answer as one" in captured.err
    assert f"adaptune status {client.jobs[0].submission_id} --address http://head:8265" in captured.out


def test_the_table_of_jobs_counts_trials_where_their_log_tells(
    client: FakeJobClient, capsys: pytest.CaptureFixture[str]
) -> None:
    client.jobs += [
        a_job("glue-1", JobStatus.STOPPED, start_time=1_790_000_000_000),
        job_details("raysubmit_other"),
        a_job("toy-1", start_time=1_790_000_060_000),
    ]
    client.logs["toy-1"] = LOG
    assert main(["jobs", *HEAD]) == 0
    out = capsys.readouterr().out
    assert "raysubmit_other" not in out
    toy, glue = [line.split("  ") for line in out.splitlines() if line.startswith(("toy-1", "glue-1"))]
    assert [cell.strip() for cell in toy if cell.strip()] == [
        *("toy-1", "toy", "running", "2026-09-21T14:14:20+00:00", "4 of 6", "~/sweeps/mine")
    ]
    assert "\N{EN DASH}" in [cell.strip() for cell in glue]
    assert main(["jobs", "--json", *HEAD]) == 0
    listed = last_json(capsys.readouterr().out)["jobs"]
    assert [(job["job"], job["trials_done"], job["exit_status"]) for job in listed] == [
        ("toy-1", 4, None),
        ("glue-1", None, 130),
    ]


def test_the_logs_of_old_jobs_are_not_fetched_for_the_table(
    client: FakeJobClient, capsys: pytest.CaptureFixture[str]
) -> None:
    number = commands.COUNTED_JOBS + 2
    client.jobs += [a_job(f"glue-{n}", JobStatus.SUCCEEDED, start_time=1_790_000_000_000 + n) for n in range(number)]
    client.jobs[0].status = JobStatus.RUNNING
    client.logs |= {f"glue-{n}": LOG for n in range(number)}
    assert main(["jobs", "--json", *HEAD]) == 0
    listed = last_json(capsys.readouterr().out)["jobs"]
    assert {job["job"] for job in listed if job["trials_done"] is None} == {"glue-1"}


def test_no_jobs_are_said_to_be_none(client: FakeJobClient, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["jobs", *HEAD]) == 0
    assert capsys.readouterr().out == "No sweep has been submitted to http://head:8265.\n"


def test_the_status_of_a_job_is_where_it_stands_and_what_it_said_last(
    client: FakeJobClient, capsys: pytest.CaptureFixture[str]
) -> None:
    client.jobs.append(a_job("toy-1"))
    client.logs["toy-1"] = LOG
    for named in ([], ["toy-1"], ["toy"]):
        assert main(["status", *named, *HEAD]) == 0
        out = capsys.readouterr().out
        assert out.splitlines()[:3] == [
            "Job toy-1, sweep toy: running",
            "Began 2026-09-21T14:13:20+00:00. Trials: 4 of 6.",
            "Records: ~/sweeps/mine on the cluster's head",
        ]
        assert out.endswith("  4/6 trials done, 2 running, 0 failed\n")


def test_the_log_of_a_job_is_printed_and_followed_to_its_end(
    client: FakeJobClient, capsys: pytest.CaptureFixture[str]
) -> None:
    client.jobs.append(a_job("toy-1"))
    client.logs["toy-1"] = LOG
    assert main(["logs", "toy-1", *HEAD]) == 0
    assert capsys.readouterr().out == LOG
    client.ends_as = JobStatus.STOPPED
    assert main(["logs", "toy-1", "--follow", *HEAD]) == 130
    assert capsys.readouterr().out == LOG + "Job toy-1 has ended: stopped.\n"


def test_a_follower_that_loses_the_cluster_says_how_to_come_back(
    client: FakeJobClient, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jobs, "SILENCE_S", 0.0)
    client.jobs.append(a_job("toy-1"))
    client.silences = 99
    assert main(["logs", "toy-1", "--follow", *HEAD]) == commands.UNKNOWN_END
    captured = capsys.readouterr()
    assert "http://head:8265 does not answer" in captured.err
    assert "adaptune logs toy-1 --follow --address http://head:8265" in captured.out


def test_a_job_is_stopped_once_and_the_command_says_how_it_ends(
    client: FakeJobClient, capsys: pytest.CaptureFixture[str]
) -> None:
    client.jobs += [a_job("toy-1"), a_job("glue-1", JobStatus.SUCCEEDED, driver_exit_code=0)]
    assert main(["stop", "toy", *HEAD]) == 0
    assert "its running trials end with their epoch" in capsys.readouterr().out
    assert main(["stop", "toy-1", "--json", *HEAD]) == 0
    assert last_json(capsys.readouterr().out)["stopping"] is True
    assert main(["stop", "glue", *HEAD]) == 0
    assert capsys.readouterr().out == "Job glue-1 has ended: completed.\n"
    assert client.stopped == ["toy-1", "toy-1"]


def test_an_address_of_the_environment_that_wins_is_told_of(
    client: FakeJobClient, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "http://name:password@elsewhere:8265")
    assert main(["jobs", *HEAD]) == 0
    captured = capsys.readouterr()
    assert captured.err == "RAY_ADDRESS is set, so this goes to http://name:***@elsewhere:8265 and not to --address\n"
    assert "password" not in captured.out
    assert main(["jobs"]) == 0
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("arguments", "fault"),
    [
        (["status"], "there must be a STORE, or with --address a cluster"),
        (["status", "--sweep", "small", *HEAD], "name the job or the sweep instead"),
        (["jobs"], "--address must be a cluster's job server"),
        (["logs", "toy-1"], "--address must be a cluster's job server"),
        (["stop", "toy-1", *HEAD], "unknown job 'toy-1'"),
    ],
)
def test_what_is_missing_is_one_clear_fault(
    client: FakeJobClient, capsys: pytest.CaptureFixture[str], arguments: list[str], fault: str
) -> None:
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert "1 fault\n" in error
    assert fault in error


@pytest.mark.thorough
def test_looking_at_jobs_loads_no_torch(tmp_path: Path) -> None:
    code = (
        "import json, sys; from orchestrator.cli import main\n"
        "ended = main(['jobs', '--address', 'http://127.0.0.1:9'])\n"
        "print(json.dumps([ended, sorted({'torch', 'transformers', 'mlflow', 'optuna'} & set(sys.modules))]))"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])}
    for variable in jobs.ADDRESS_VARIABLES:
        environment.pop(variable, None)
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True, check=True
    )
    assert json.loads(done.stdout) == [2, []]
    assert "does not answer as one" in done.stderr
