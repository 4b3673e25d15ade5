"""Against a real MLflow server: over PostgreSQL where its programs are installed, else over SQLite.

The test ids say which. PostgreSQL is looked for on the PATH and where Debian keeps it; it listens to a socket in a
folder of its own and never runs as root, which it refuses.
"""

from __future__ import annotations

import contextlib
import importlib.util
import logging
import math
import os
import pwd
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from orchestrator.plan import PlannedTrial
from orchestrator.record import TrialRecord, TrialStatus
from orchestrator.tracking import Tracker
from orchestrator.tracking.address import LOOPBACK, free_port
from trainables.outcome import EpochReport

pytestmark = pytest.mark.timeout(240)  # a server takes ten seconds to start, and longer on a busy machine

COMPLETED = TrialStatus.COMPLETED
START_WITHIN_S = 150.0
# Without its background jobs, which serve other uses of MLflow.
QUIET = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true", "PYTHONWARNINGS": "ignore"}


def _postgres_programs() -> Path | None:
    """The folder of initdb and postgres, the newest of several; None where there is none, or no driver for Python."""
    on_path = shutil.which("initdb")
    places = [*([Path(on_path).resolve().parent] if on_path else []), *Path("/usr/lib/postgresql").glob("*/bin")]
    whole = [place for place in places if (place / "initdb").exists() and (place / "postgres").exists()]
    has_driver = importlib.util.find_spec("psycopg2") is not None
    return max(whole, key=lambda place: _number(place.parent.name)) if whole and has_driver else None


def _number(name: str) -> float:
    return float(name) if name.replace(".", "", 1).isdigit() else 0.0


PROGRAMS = _postgres_programs()
BACKEND = "postgresql" if PROGRAMS else "sqlite"


class Postgres:
    """A PostgreSQL server of its own, reached through a socket in its folder."""

    def __init__(self, folder: Path, programs: Path) -> None:
        self.folder, self._programs = folder, programs
        self._process: subprocess.Popen[bytes] | None = None
        self._as = self._user()
        shutil.chown(folder, self._as.get("user"), self._as.get("group"))
        options = ["--auth=trust", "--username=adaptune", "--encoding=UTF8", "--locale=C", "--no-sync"]
        command = [programs / "initdb", "-D", folder / "data", *options]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, cwd=folder, **self._as)

    @property
    def uri(self) -> str:
        return f"postgresql+psycopg2://adaptune@/postgres?host={self.folder}"

    def start(self) -> None:
        settings = ["-c", "listen_addresses=", "-c", "fsync=off", "-c", f"unix_socket_directories={self.folder}"]
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [self._programs / "postgres", "-D", self.folder / "data", *settings],
                stdout=log,
                stderr=log,
                cwd=self.folder,
                start_new_session=True,
                **self._as,
            )
        wait_until(self._is_ready)

    def stop(self, how: signal.Signals = signal.SIGINT) -> None:
        """SIGINT is PostgreSQL's fast shutdown, SIGQUIT its immediate one: like a crash, all its processes at once."""
        if self._process is not None:
            self._process.send_signal(how)
            self._process.wait(30)
            self._process = None

    def _is_ready(self) -> bool:
        import psycopg2

        try:
            psycopg2.connect(host=str(self.folder), user="adaptune", dbname="postgres").close()
        except psycopg2.OperationalError:
            return False
        return True

    @staticmethod
    def _user() -> dict[str, Any]:
        if os.geteuid() != 0:
            return {}
        names = {entry.pw_name: entry for entry in pwd.getpwall()}
        entry = names.get("postgres") or names["nobody"]
        return {"user": entry.pw_uid, "group": entry.pw_gid, "extra_groups": []}


class Server:
    """`mlflow server` on a port of the loopback interface, with a log of every request."""

    def __init__(self, backend_uri: str, folder: Path) -> None:
        self._backend_uri, self._folder = backend_uri, folder
        self._port = free_port()
        self._log = folder / "server.log"
        self._process: subprocess.Popen[bytes] | None = None
        self.uri = f"http://{LOOPBACK}:{self._port}"

    def start(self) -> None:
        command = [sys.executable, "-m", "mlflow", "server", "--backend-store-uri", self._backend_uri]
        command += ["--host", LOOPBACK, "--port", str(self._port), "--workers", "1"]
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                command, stdout=log, stderr=log, cwd=self._folder, env={**os.environ, **QUIET}, start_new_session=True
            )
        wait_until(self._is_up, START_WITHIN_S)

    def kill(self) -> None:
        """End it and whatever it started, without a chance to say goodbye."""
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            self._process = None

    def requests(self) -> Counter[str]:
        """How often each request about runs has been answered so far: "POST create", "GET get-history"."""
        answered = re.findall(r'"(GET|POST|PATCH|DELETE) /\S*/(?:runs|metrics)/([a-z-]+)', self._log.read_text())
        return Counter(f"{verb} {what}" for verb, what in answered)

    def _is_up(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, self._log.read_text()
        try:
            with urllib.request.urlopen(f"{self.uri}/health", timeout=5) as answer:
                return bool(answer.status == 200)
        except (urllib.error.URLError, OSError):
            return False


def wait_until(condition: Callable[[], bool], seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it never came"
        time.sleep(0.05)


@pytest.fixture(scope="module")
def postgres() -> Iterator[Postgres | None]:
    """None where PostgreSQL is not installed."""
    if PROGRAMS is None:
        yield None
        return
    folder = Path(tempfile.mkdtemp(prefix="adaptune-pg-"))  # short, as a socket's path must be, and not below root's
    database = Postgres(folder, PROGRAMS)
    try:
        database.start()
        yield database
    finally:
        database.stop()
        shutil.rmtree(folder)


@pytest.fixture(scope="module", params=[BACKEND])
def server(postgres: Postgres | None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("server")
    served = Server(postgres.uri if postgres else f"sqlite:///{folder}/mlflow.db", folder)
    try:
        served.start()
        yield served
    finally:
        served.kill()


Start = Callable[..., Tracker]
Plan = Callable[[str], PlannedTrial]
MakeRecord = Callable[..., TrialRecord]
MakeEpoch = Callable[[int], EpochReport]


@pytest.fixture
def track(server: Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[Start]:
    """`track(sweep)`: a tracker on the server that flushes every 50 ms, closed at the latest with the test."""
    monkeypatch.setattr("orchestrator.tracking.tracker._FIRST_WAIT_S", 0.05)
    monkeypatch.setattr("orchestrator.tracking.tracker._LONGEST_WAIT_S", 0.5)
    trackers: list[Tracker] = []

    def start(sweep: str, **options: Any) -> Tracker:
        spec = f'{{"name": "{sweep}"}}'
        trackers.append(Tracker(sweep, spec, tracking_uri=server.uri, **{"flush_interval_s": 0.05, **options}))
        return trackers[-1]

    yield start
    for tracker in trackers:
        tracker.close(TrialStatus.CANCELLED, timeout_s=20)


def shown(server: Server, sweep: str) -> tuple[Any, Mapping[str, Any]]:
    """The sweep's run and the trials' by trial_id; there is one sweep's run, and no trial has two."""
    from mlflow.tracking.client import MlflowClient

    client = MlflowClient(tracking_uri=server.uri)
    experiment = client.get_experiment_by_name(sweep)
    assert experiment is not None
    runs = client.search_runs([experiment.experiment_id], max_results=1000)
    (parent,) = [run for run in runs if run.data.tags["adaptune.kind"] == "sweep"]
    trials = [run for run in runs if run is not parent]
    assert {run.data.tags["mlflow.parentRunId"] for run in trials} <= {parent.info.run_id}
    by_trial = {run.data.tags["adaptune.trial_id"]: run for run in trials}
    assert len(by_trial) == len(trials)
    return parent, by_trial


def points(server: Server, run: Any, key: str) -> list[tuple[int, float]]:
    from mlflow.tracking.client import MlflowClient

    history = MlflowClient(tracking_uri=server.uri).get_metric_history(run.info.run_id, key)
    return [(metric.step, metric.value) for metric in history]


def test_a_sweep_is_shown_by_a_tracking_server(
    server: Server, track: Start, planned: Plan, record: MakeRecord, epoch: MakeEpoch
) -> None:
    tracker = track("whole")
    tracker.trial_started(planned("a"))
    for number in (1, 2):
        tracker.epoch("a", epoch(number))
    tracker.trial_ended(record("a"))
    tracker.trial_ended(record("b", "failed", error="Traceback", epochs=()))
    tracker.trial_started(planned("c"))
    assert tracker.close(COMPLETED)
    parent, runs = shown(server, "whole")
    assert parent.info.status == "FINISHED"
    assert {trial_id: run.info.status for trial_id, run in runs.items()} == {
        "a": "FINISHED",
        "b": "FAILED",
        "c": "KILLED",
    }
    assert runs["a"].data.params["adapter_size"] == "64"
    assert points(server, runs["a"], "validation_score") == [(1, 0.1), (2, 0.2)]
    assert points(server, runs["a"], "test/accuracy") == [(2, 0.25)]


def test_trials_that_end_between_two_flushes_cost_three_requests_each(
    server: Server, track: Start, planned: Plan, record: MakeRecord, epoch: MakeEpoch
) -> None:
    tracker = track("cheap", flush_interval_s=60)
    wait_until(lambda: server_holds(server, "cheap"))
    before = server.requests()
    for number in range(20):
        tracker.trial_started(planned(f"t{number}"))
        tracker.epoch(f"t{number}", epoch(1))
        tracker.trial_ended(record(f"t{number}"))
    assert tracker.close(COMPLETED)
    cost = server.requests() - before
    assert cost.total() <= 20 * 3 + 2, cost  # and the sweep's own end, in two
    assert len(shown(server, "cheap")[1]) == 20


def test_trials_that_live_for_several_flushes_cost_one_more_for_each(
    server: Server, track: Start, planned: Plan, record: MakeRecord, epoch: MakeEpoch
) -> None:
    interval_s = 0.25
    tracker = track("long", flush_interval_s=interval_s)
    wait_until(lambda: server_holds(server, "long"))
    before, began = server.requests(), time.monotonic()
    for trial_id in ("a", "b"):
        tracker.trial_started(planned(trial_id))
    for number in range(1, 31):  # many more epochs than flushes
        for trial_id in ("a", "b"):
            tracker.epoch(trial_id, epoch(number))
        time.sleep(0.05)
    for trial_id in ("a", "b"):
        tracker.trial_ended(record(trial_id, epochs=tuple(epoch(number) for number in range(1, 31))))
    assert tracker.close(COMPLETED)
    flushes = math.ceil((time.monotonic() - began) / interval_s) + 1
    cost = server.requests() - before
    assert cost.total() <= 2 * (3 + flushes) + 2, (cost, flushes)
    for run in shown(server, "long")[1].values():
        assert [step for step, _ in points(server, run, "validation_score")] == list(range(1, 31))


def server_holds(server: Server, sweep: str) -> bool:
    """Whether a sweep's run is there and its spec among the artifacts: the tracker has nothing more to say."""
    from mlflow.tracking.client import MlflowClient

    client = MlflowClient(tracking_uri=server.uri)
    experiment = client.get_experiment_by_name(sweep)
    wanted = "tags.`adaptune.kind` = 'sweep'"
    parents = client.search_runs([experiment.experiment_id], wanted) if experiment else []
    return bool(parents) and bool(client.list_artifacts(parents[0].info.run_id))


def test_concurrent_sweeps_keep_apart(
    server: Server, track: Start, planned: Plan, record: MakeRecord, epoch: MakeEpoch
) -> None:
    names = ("first", "second", "third")
    complete: dict[str, bool] = {}

    def sweep(name: str) -> None:
        tracker = track(name)
        for number in range(6):
            trial_id = f"t{number}"  # the same ids in each: two sweeps may plan the same trial
            tracker.trial_started(planned(trial_id))
            tracker.epoch(trial_id, epoch(1))
            time.sleep(0.03)
            tracker.epoch(trial_id, epoch(2))
            tracker.trial_ended(record(trial_id, sweep=name))
        complete[name] = tracker.close(COMPLETED)

    threads = [threading.Thread(target=sweep, args=(name,)) for name in names]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(100)
    assert complete == dict.fromkeys(names, True)
    for name in names:
        parent, runs = shown(server, name)
        assert parent.info.status == "FINISHED"
        assert {run.info.status for run in runs.values()} == {"FINISHED"}
        assert runs.keys() == {f"t{number}" for number in range(6)}
        assert all(points(server, run, "validation_score") == [(1, 0.1), (2, 0.2)] for run in runs.values())


DISTURBANCES = ["the server is killed", *(["the database is killed"] if PROGRAMS else [])]


@pytest.mark.parametrize("disturbance", DISTURBANCES)
def test_sweeps_outlive_an_outage_and_fill_the_gap(
    disturbance: str,
    server: Server,
    postgres: Postgres | None,
    track: Start,
    planned: Plan,
    record: MakeRecord,
    epoch: MakeEpoch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Two sweeps go on while nothing answers; afterwards each trial has one run, with every point once."""
    names = [f"{each} {disturbance.split()[1]}" for each in ("one", "other")]
    trackers = {name: track(name) for name in names}

    def begin(trial_id: str) -> None:
        for tracker in trackers.values():
            tracker.trial_started(planned(trial_id))
            tracker.epoch(trial_id, epoch(1))

    def end(trial_id: str) -> None:
        for name, tracker in trackers.items():
            tracker.epoch(trial_id, epoch(2))
            tracker.trial_ended(record(trial_id, sweep=name))

    for trial_id in ("before", "across", "running"):
        begin(trial_id)
    end("before")
    wait_until(lambda: all(server_holds(server, name) for name in names))
    wait_until(lambda: all(shown(server, name)[1].keys() >= {"before", "across", "running"} for name in names))
    begin("cut short")  # noted at the moment of the outage: on its way, there, or lost
    if disturbance == "the server is killed":
        server.kill()
    else:
        assert postgres is not None
        postgres.stop(signal.SIGQUIT)
    end("across")
    begin("during")
    end("during")
    end("cut short")
    wait_until(lambda: caplog.text.count("the sweep goes on") == 2)
    if postgres is not None and disturbance == "the database is killed":
        postgres.start()
    else:
        server.start()
    begin("after")
    end("after")
    for tracker in trackers.values():
        assert tracker.close(COMPLETED)
    for name in names:
        parent, runs = shown(server, name)
        assert parent.info.status == "FINISHED"
        ends = {trial_id: run.info.status for trial_id, run in runs.items()}
        assert ends == {
            **dict.fromkeys(("before", "across", "cut short", "during", "after"), "FINISHED"),
            "running": "KILLED",
        }
        for trial_id, run in runs.items():
            expected = [(1, 0.1)] if trial_id == "running" else [(1, 0.1), (2, 0.2)]
            assert points(server, run, "validation_score") == expected, (name, trial_id)
    warnings = [entry.getMessage() for entry in caplog.records if entry.levelno >= logging.WARNING]
    assert len(warnings) == 2, warnings  # one for each sweep, however often it was tried
