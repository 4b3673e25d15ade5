"""MLflow of a round: a SQLite file, or a server over one in a process of its own; and what it shows in the end."""

from __future__ import annotations

import contextlib
import os
import signal
import sqlite3
import subprocess
import sys
import time
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from orchestrator.tracking.address import LOOPBACK, free_port

_START_S = 180.0
# The metrics of which every epoch of a trial has a point.
EPOCH_METRICS = ("validation_score", "train/loss")


@dataclass(frozen=True)
class Shown:
    """A trial's run as MLflow shows it."""

    status: str
    metrics: Mapping[str, float]  # the last of each
    points: Mapping[str, list[int]] = field(default_factory=dict)  # metric -> the step of each of its points


class Database:
    """MLflow over a SQLite file, which another process may hold for itself for a while."""

    def __init__(self, folder: Path) -> None:
        self.file = folder / "mlflow.db"
        self._holder: sqlite3.Connection | None = None

    @property
    def uri(self) -> str:
        return f"sqlite:///{self.file}"

    def lock(self) -> bool:
        """Keep everybody else from reading and writing; False where there is nothing yet to be kept from."""
        if not self.file.exists():
            return False
        with contextlib.suppress(sqlite3.OperationalError):
            holder = sqlite3.connect(self.file, timeout=0.5, isolation_level=None)
            holder.execute("BEGIN EXCLUSIVE")
            self._holder = holder
        return self._holder is not None

    def unlock(self) -> None:
        if self._holder is not None:
            self._holder.execute("ROLLBACK")
            self._holder.close()
            self._holder = None

    def close(self) -> None:
        self.unlock()


class Server:
    """`mlflow server` over a SQLite file on a free port of the loopback interface."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._port = free_port()
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def uri(self) -> str:
        return f"http://{LOOPBACK}:{self._port}"

    def start(self) -> None:
        """Start it, and do not wait until it answers."""
        if self._process is not None:
            return
        options = ["--backend-store-uri", f"sqlite:///{self._folder / 'server.db'}", "--workers", "1"]
        options += ["--artifacts-destination", str(self._folder / "artifacts"), "--host", LOOPBACK]
        with (self._folder / "server.log").open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "mlflow", "server", *options, "--port", str(self._port)],
                cwd=self._folder,
                env={**os.environ, "MLFLOW_DISABLE_TELEMETRY": "true"},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def wait(self) -> None:
        """Until it answers."""
        ends = time.monotonic() + _START_S
        while time.monotonic() < ends:
            if self._process is None or self._process.poll() is not None:
                break
            with contextlib.suppress(OSError), urllib.request.urlopen(f"{self.uri}/health", timeout=2):
                return
            time.sleep(0.2)
        raise TimeoutError(f"the MLflow server does not answer at {self.uri}; see {self._folder / 'server.log'}")

    def kill(self) -> bool:
        """Kill it with its workers; False where it is down already."""
        process, self._process = self._process, None
        if process is None:
            return False
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        return True

    def close(self) -> None:
        self.kill()


def runs(uri: str, experiment: str) -> tuple[list[str], dict[str, list[Shown]]]:
    """The statuses of the sweep's own runs, and trial_id -> the runs of that trial."""
    from mlflow.tracking.client import MlflowClient

    client = MlflowClient(tracking_uri=uri, registry_uri=uri)
    found = client.get_experiment_by_name(experiment)
    if found is None:
        return [], {}
    sweeps: list[str] = []
    trials: dict[str, list[Shown]] = {}
    for run in client.search_runs([found.experiment_id], max_results=1000):
        kind = run.data.tags.get("adaptune.kind")
        if kind == "sweep":
            sweeps.append(run.info.status)
        if kind != "trial":
            continue
        trial_id = run.data.tags["adaptune.trial_id"]
        points = {
            name: [point.step for point in client.get_metric_history(run.info.run_id, name)]
            for name in EPOCH_METRICS
            if name in run.data.metrics
        }
        trials.setdefault(trial_id, []).append(Shown(run.info.status, dict(run.data.metrics), points))
    return sweeps, trials
