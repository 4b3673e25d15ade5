"""A sweep that is submitted to a real cluster and left, found again, watched and stopped."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from orchestrator.cli import main
from orchestrator.engine_status import EngineStatus
from orchestrator.record import TrialStatus
from orchestrator.run.sweep import load_results
from orchestrator.store import Store
from tests.orchestrator.cli.conftest import WriteSweep, last_json

pytestmark = pytest.mark.ray


def _free_ports(number: int) -> list[int]:
    """Ports nobody listens on, held open together so that none comes twice."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(number)]
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


@pytest.fixture
def head(home: Path) -> Iterator[str]:
    """The address of the job server of a cluster of one node, with one CPU, which ends with the test."""
    folder = tempfile.mkdtemp(prefix="ada-")  # short: Ray's sockets lie in it
    gcs, dashboard, client, agent = _free_ports(4)
    bin_folder = Path(sys.executable).parent
    started = subprocess.Popen(
        [
            *(bin_folder / "ray", "start", "--head", "--block", "--disable-usage-stats", f"--temp-dir={folder}"),
            *("--node-ip-address=127.0.0.1", "--num-cpus=1", "--object-store-memory=100000000", f"--port={gcs}"),
            *(f"--ray-client-server-port={client}", f"--dashboard-agent-listen-port={agent}"),
            *("--dashboard-host=127.0.0.1", f"--dashboard-port={dashboard}"),
        ],
        env={**os.environ, "PATH": f"{bin_folder}:{os.environ['PATH']}", "RAY_AUTH_MODE": "disabled"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        _wait(lambda: _listens(dashboard), 90)
        yield f"http://127.0.0.1:{dashboard}"
    finally:
        started.send_signal(signal.SIGTERM)  # takes its own processes with it
        try:
            started.wait(10)
        except subprocess.TimeoutExpired:
            os.killpg(started.pid, signal.SIGKILL)
            started.wait()
        shutil.rmtree(folder, ignore_errors=True)


def _listens(port: int) -> bool:
    with socket.socket() as knock:
        return knock.connect_ex(("127.0.0.1", port)) == 0


def _wait(condition: Callable[[], bool], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not come true in time"
        time.sleep(0.2)


@pytest.mark.timeout(240)
def test_a_sweep_is_submitted_left_found_again_and_stopped_in_order(
    head: str, home: Path, write_sweep: WriteSweep, capsys: pytest.CaptureFixture[str]
) -> None:
    store = home / "store"
    sweep = write_sweep(seeds=[0], methods=["layernorm"], space={"num_epochs": 2000, "learning_rate": 1e-3})
    tracking = f"sqlite:///{home}/mlflow.db"
    places = ["--store", str(store), "--tracking-uri", tracking, "--address", head]
    assert main(["submit", sweep, "--detach", "--json", *places]) == 0
    submitted = last_json(capsys.readouterr().out)
    job = submitted["job"]
    assert (submitted["status"], submitted["trials_planned"]) == ("running", 1)

    assert main(["jobs", "--json", "--address", head]) == 0
    [listed] = json.loads(capsys.readouterr().out)["jobs"]
    assert (listed["job"], listed["sweep"], listed["store"]) == (job, "small", str(store))

    _wait(lambda: any(engine.num_trials for engine in _engines(store)), 120)
    assert main(["stop", "small", "--address", head]) == 0
    assert "end with their epoch" in capsys.readouterr().out
    assert main(["logs", job, "--follow", "--address", head]) == 130
    log = capsys.readouterr().out
    assert "Interrupted. Everything finished is recorded" in log
    assert main(["status", job, "--json", "--address", head]) == 0
    assert last_json(capsys.readouterr().out)["status"] == "stopped"
    results = load_results(str(store))
    assert results.counts() == {TrialStatus.CANCELLED: 1}
    assert len(results.epochs()) > 0


def _engines(store: Path) -> Sequence[EngineStatus]:
    snapshot = Store(store).engine_snapshot()
    return () if snapshot is None else snapshot.engines
