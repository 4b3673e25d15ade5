"""A cluster's job server: which jobs are sweeps, how a log is followed, what is said where it does not answer."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from ray.job_submission import JobStatus

from orchestrator.scheduling import jobs
from orchestrator.scheduling.jobs import SWEEP_KEY, JobServer, connect, job_server_address
from tests.orchestrator.scheduling.fake_job_client import FIRST_START_MS, FakeJobClient, job_details
from trainables.faults import FaultsError

ADDRESS = "http://head:8265"


def sweep_job(job_id: str, status: JobStatus = JobStatus.RUNNING, *, sweep: str = "glue", hours: int = 0, **fields):
    metadata = {SWEEP_KEY: sweep, "adaptune.store": f"s3://bucket/{sweep}"}
    return job_details(job_id, status, metadata=metadata, start_time=FIRST_START_MS + hours * 3_600_000, **fields)


def server(*details, **settings) -> JobServer:
    return JobServer(FakeJobClient(jobs=list(details), **settings), ADDRESS)


@pytest.fixture(autouse=True)
def _no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jobs, "_RETRY_S", 0.0)


def test_sweeps_are_listed_the_last_first_and_jobs_of_others_are_not():
    others = [job_details("raysubmit_other"), job_details(None), job_details("raysubmit_bare", metadata=None)]
    ended = sweep_job("glue-1", JobStatus.FAILED, driver_exit_code=1, end_time=FIRST_START_MS + 1000)
    listed = server(ended, *others, sweep_job("glue-2", hours=1)).sweeps()
    assert [(each.job_id, each.status, each.exit_status) for each in listed] == [
        ("glue-2", "running", None),
        ("glue-1", "failed", 1),
    ]
    assert listed[1].store == "s3://bucket/glue"
    assert (listed[1].started_at, listed[1].ended_at) == ("2026-09-21T14:13:20+00:00", "2026-09-21T14:13:21+00:00")


@pytest.mark.parametrize(
    ("status", "exit_code", "expected"),
    [
        (JobStatus.SUCCEEDED, 0, 0),
        (JobStatus.SUCCEEDED, None, 0),
        (JobStatus.FAILED, 2, 2),
        (JobStatus.FAILED, None, 1),
        (JobStatus.STOPPED, None, 130),
        (JobStatus.PENDING, None, None),
    ],
)
def test_the_exit_status_of_a_job_is_that_of_its_sweep(status, exit_code, expected):
    [only] = server(sweep_job("glue-1", status, driver_exit_code=exit_code)).sweeps()
    assert only.exit_status == expected


def test_a_job_is_found_by_its_id_or_its_sweep_or_as_the_last():
    ended = sweep_job("glue-1", JobStatus.SUCCEEDED, hours=5)
    asked = server(ended, sweep_job("glue-2"), sweep_job("toy-1", JobStatus.STOPPED, sweep="toy"))
    assert asked.find("glue-1").job_id == "glue-1"
    assert asked.find("glue").job_id == "glue-2"  # it runs, which the later one does not
    assert asked.find("toy").job_id == "toy-1"
    assert asked.find(None).job_id == "glue-2"
    assert server(ended, sweep_job("glue-0", JobStatus.FAILED)).find("glue").job_id == "glue-1"


@pytest.mark.parametrize(
    ("name", "fault"),
    [
        ("glue-11", r"unknown job 'glue-11'; did you mean 'glue-1'"),
        ("raysubmit_other", "'raysubmit_other' is a job of another kind; `ray job` looks after those"),
        ("02000000", "is a job of another kind"),
        ("glue", "several sweeps of the name 'glue' are at work: glue-2, glue-1"),
        (None, "several sweeps are at work: glue-2, glue-1"),
        ("far-off", r"unknown job 'far-off'\. Submitted last: glue-2, glue-1"),
    ],
)
def test_a_job_that_is_not_to_be_found_is_one_clear_fault(name, fault):
    others = [job_details("raysubmit_other"), job_details(None, job_id="02000000")]
    with pytest.raises(FaultsError, match=fault) as caught:
        server(sweep_job("glue-1"), *others, sweep_job("glue-2", hours=1)).find(name)
    assert len(caught.value.faults) == 1
    assert "secret.py" not in str(caught.value)


def test_a_cluster_without_sweeps_says_how_one_gets_there():
    with pytest.raises(FaultsError, match="this cluster has none; `adaptune submit` sends one"):
        server(job_details("raysubmit_other")).find(None)


LOG = "2 trials planned\n1/2 trials done, 1 running, 0 failed\nümläute\n2 trials: 2 completed.\n"


@pytest.mark.parametrize("breaks_after", [[], [20], [0, 33, 5, 40], [len(LOG)]])
def test_a_followed_log_is_whole_and_comes_once_however_often_the_connection_breaks(breaks_after):
    asked = server(
        sweep_job("glue-1", driver_exit_code=0),
        logs={"glue-1": LOG},
        breaks_after=list(breaks_after),
        ends_as=JobStatus.SUCCEEDED,
    )
    shown, told = [], []
    ended = asked.follow("glue-1", shown.append, told.append)
    assert "".join(shown) == LOG
    assert (ended.status, told) == ("completed", [])


def test_a_job_that_ends_while_its_log_is_cut_off_is_shown_to_the_end():
    asked = server(sweep_job("glue-1", JobStatus.FAILED, driver_exit_code=1), logs={"glue-1": LOG}, breaks_after=[30])
    shown = []
    assert asked.follow("glue-1", shown.append, shown.append).exit_status == 1
    assert "".join(shown) == LOG


def test_a_silent_server_is_waited_for_and_told_of_once():
    asked = server(sweep_job("glue-1"), logs={"glue-1": LOG}, ends_as=JobStatus.SUCCEEDED, breaks_after=[9, 9, 9])
    asked.client.silences = 3
    shown, told = [], []
    assert asked.follow("glue-1", shown.append, told.append).status == "completed"
    assert "".join(shown) == LOG
    assert told == [f"{ADDRESS} does not answer. The job goes on without it; this waits for the answer."]


def test_a_server_that_stays_silent_is_given_up(monkeypatch):
    monkeypatch.setattr(jobs, "SILENCE_S", 0.0)
    asked = server(sweep_job("glue-1"), breaks_after=[0] * 9)
    asked.client.silences = 9
    with pytest.raises(FaultsError, match="does not answer as one"):
        asked.follow("glue-1", lambda text: None, lambda line: None)


def test_the_address_of_the_environment_wins_as_in_rays_own_commands():
    both = {"RAY_API_SERVER_ADDRESS": "http://a:1", "RAY_ADDRESS": "http://b:1"}
    assert job_server_address("http://c:1", {}) == ("http://c:1", None)
    assert job_server_address("http://c:1", both) == ("http://a:1", "RAY_API_SERVER_ADDRESS")
    assert job_server_address(None, {"RAY_ADDRESS": "http://b:1"}) == ("http://b:1", "RAY_ADDRESS")
    assert job_server_address("http://a:1", both) == ("http://a:1", None)


def test_an_address_that_is_none_is_refused_before_anything_is_asked():
    with pytest.raises(FaultsError, match=r"none is given; RAY_API_SERVER_ADDRESS may name it too"):
        job_server_address(None, {})
    with pytest.raises(FaultsError, match=r"but it is s3://\*\*\*:\*\*\*@place/x \(from RAY_ADDRESS\)"):
        job_server_address(None, {"RAY_ADDRESS": "s3://name:password@place/x"})


@contextmanager
def http_server(status: int, body: str) -> Iterator[str]:
    """A server that gives the same answer to every question; its address."""

    class Answer(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body.encode())

        def log_message(self, format: str, *args: object) -> None:
            pass

    listening = ThreadingHTTPServer(("127.0.0.1", 0), Answer)
    thread = threading.Thread(target=listening.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"http://127.0.0.1:{listening.server_port}"
    finally:
        listening.shutdown()
        thread.join()
        listening.server_close()


@pytest.mark.parametrize(
    ("status", "body", "fault"),
    [
        (401, "Unauthorized: Missing authentication token", "set RAY_AUTH_MODE=token, and RAY_AUTH_TOKEN_PATH"),
        (403, "Forbidden: Invalid authentication token", "set RAY_AUTH_MODE=token, and RAY_AUTH_TOKEN_PATH"),
        (404, "", "does not answer as one"),
        (500, "", "does not answer as one"),
        (200, "<html>a router</html>", "does not answer as one"),
        (200, "{}", "does not answer as one"),
    ],
)
def test_a_server_that_refuses_or_is_another_kind_is_one_clear_fault(status, body, fault):
    with http_server(status, body) as address, pytest.raises(FaultsError, match=fault) as caught:
        connect(address)
    assert len(caught.value.faults) == 1
    assert address in str(caught.value)


def test_a_port_where_nobody_listens_is_one_clear_fault():
    with socket.create_server(("127.0.0.1", 0)) as held:
        port = held.getsockname()[1]
    with pytest.raises(FaultsError, match=f"but http://127.0.0.1:{port} does not answer as one"):
        connect(f"http://127.0.0.1:{port}")


def test_a_secret_in_a_long_answer_is_masked_before_the_answer_is_cut(monkeypatch):
    monkeypatch.setenv("RAY_AUTH_TOKEN", "hunter2" * 8)
    client = FakeJobClient()
    monkeypatch.setattr(client, "list_jobs", lambda: (_ for _ in ()).throw(RuntimeError("x" * 280 + "hunter2" * 8)))
    with pytest.raises(FaultsError) as error:
        JobServer(client, "http://head:8265").sweeps()
    assert "hunter2" not in str(error.value)


def test_an_address_with_a_password_is_refused_without_showing_it():
    with pytest.raises(FaultsError, match=r"--address must hold no secrets.*RAY_AUTH_TOKEN") as caught:
        connect("http://name:planted@127.0.0.1:1")
    assert "planted" not in str(caught.value)
