"""A real MLflow server: over PostgreSQL where its programs are installed, else over SQLite.

The test ids say which. PostgreSQL is looked for on the PATH and where Debian keeps it; it listens to a socket in a
folder of its own and never runs as root, which it refuses.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import pwd
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from orchestrator.record import TrialStatus
from orchestrator.tracking import Tracker
from orchestrator.tracking.address import LOOPBACK, free_port
from orchestrator.tracking.tracker import Patience

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


class Outage(NamedTuple):
    begin: Callable[[], None]
    end: Callable[[], None]


class Server:
    """`mlflow server` on a port of the loopback interface, with a log of every request.

    With a password it lets in nobody but `admin`.
    """

    def __init__(self, backend_uri: str, folder: Path, password: str | None = None) -> None:
        self._backend_uri, self._folder, self._password = backend_uri, folder, password
        self._port = free_port()
        self._log = folder / "server.log"
        self._process: subprocess.Popen[bytes] | None = None
        self.uri = f"http://{LOOPBACK}:{self._port}"

    def start(self) -> None:
        command = [sys.executable, "-m", "mlflow", "server", "--backend-store-uri", self._backend_uri]
        command += ["--host", LOOPBACK, "--port", str(self._port), "--workers", "1"]
        environment = {**os.environ, **QUIET}
        if self._password is not None:
            command += ["--app-name", "basic-auth"]
            environment |= {"MLFLOW_AUTH_ADMIN_PASSWORD": self._password, "MLFLOW_FLASK_SERVER_SECRET_KEY": "of a test"}
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                command, stdout=log, stderr=log, cwd=self._folder, env=environment, start_new_session=True
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


@pytest.fixture
def track(server: Server) -> Iterator[Start]:
    """`track(sweep)`: a tracker on the server that flushes every 50 ms, closed at the latest with the test."""
    patience = Patience(flush_interval_s=0.05, first_wait_s=0.05, longest_wait_s=0.5)
    trackers: list[Tracker] = []

    def start(sweep: str, spec_json: str | None = None, **options: Any) -> Tracker:
        spec = spec_json or f'{{"name": "{sweep}"}}'
        trackers.append(Tracker(sweep, spec, tracking_uri=server.uri, **{"patience": patience, **options}))
        return trackers[-1]

    yield start
    for tracker in trackers:
        tracker.close(TrialStatus.CANCELLED, timeout_s=20)


@pytest.fixture(params=["the server is killed", *(["the database is killed"] if PROGRAMS else [])])
def outage(request: pytest.FixtureRequest, server: Server, postgres: Postgres | None) -> Outage:
    """Something that can be taken away in the middle of a sweep and given back."""
    if postgres is not None and request.param == "the database is killed":
        return Outage(begin=lambda: postgres.stop(signal.SIGQUIT), end=postgres.start)
    return Outage(begin=server.kill, end=server.start)
