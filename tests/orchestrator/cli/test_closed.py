"""What listens while a sweep runs on one machine: nothing that another machine can reach, nothing without the token."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import grpc
import pytest

from orchestrator.store import Store
from tests.listening import Listener, listeners, with_descendants

pytestmark = [
    pytest.mark.ray,
    pytest.mark.timeout(240),
    pytest.mark.skipif(not Path("/proc/net/tcp").exists(), reason="reads /proc"),
]

# Calls that would do something, by what the process is called that serves them. Each takes an empty message.
GRPC = {
    "gcs_server": ["/ray.rpc.InternalKVGcsService/InternalKVGet", "/ray.rpc.JobInfoGcsService/AddJob"],
    "raylet": ["/ray.rpc.NodeManagerService/GetSystemConfig", "/ray.rpc.ObjectManagerService/Push"],
    "worker": ["/ray.rpc.CoreWorkerService/PushTask"],
}
HTTP = {"RuntimeEnvAgent": "/get_or_create_runtime_env"}
REFUSED = {"UNAUTHENTICATED", "401"}
# A port of a process with several serves one of its services, and does not know the other.
UNKNOWN = "UNIMPLEMENTED"


def kind(listener: Listener) -> str:
    program = Path(listener.command.split()[0]).name
    if program in ("gcs_server", "raylet"):
        return program
    if listener.command.startswith("ray::RuntimeEnvAgent"):
        return "RuntimeEnvAgent"
    return "worker"  # the driver, the pool, an engine, a trial's process


def command(process: int) -> str:
    with contextlib.suppress(OSError):  # it has ended
        return Path(f"/proc/{process}/cmdline").read_text()
    return ""


def speaks_http(port: int) -> bool:
    with socket.create_connection(("127.0.0.1", port), timeout=10) as asked:
        asked.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
        return asked.recv(5) == b"HTTP/"


def answers(listener: Listener) -> set[str]:
    """What a port tells somebody without the token: the names of gRPC's statuses, or HTTP's number."""
    if speaks_http(listener.port):
        request = urllib.request.Request(f"http://127.0.0.1:{listener.port}{HTTP[kind(listener)]}", data=b"{}")
        with pytest.raises(urllib.error.HTTPError) as refusal:
            urllib.request.urlopen(request, timeout=10)
        with refusal.value as answer:
            return {str(answer.code)}
    told = set()
    with grpc.insecure_channel(f"127.0.0.1:{listener.port}") as channel:
        for call in GRPC[kind(listener)]:
            with pytest.raises(grpc.RpcError) as refused:
                channel.unary_unary(call)(b"", timeout=10)
            told.add(refused.value.code().name)
    return told


def test_a_sweep_s_ray_is_reached_from_this_machine_alone_and_does_nothing_without_its_token(
    home: Path, write_sweep: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")  # what the user says of other clusters is not about this one
    sweep = write_sweep(space={"num_epochs": 8, "learning_rate": 1e-3, "batch_size": 4})
    with (home / "driver.log").open("w") as log:
        driver = subprocess.Popen(
            [sys.executable, "-m", "adaptune", "run", sweep, "--json"], cwd=home, stdout=log, stderr=log
        )
    try:
        store, deadline = Store(home / "sweeps" / "small"), time.monotonic() + 150
        while not store.exists() or not store.statuses():
            assert driver.poll() is None, (home / "driver.log").read_text()
            assert time.monotonic() < deadline
            time.sleep(0.2)
        found = listeners(driver.pid)
        assert {kind(listener) for listener in found} == {*GRPC, *HTTP}
        assert any("EngineActor" in listener.command for listener in found)
        started = " ".join(command(process) for process in with_descendants(driver.pid))
        assert "EnginePool" in started
        assert not [name for name in ("dashboard.py", "monitor.py") if name in started]  # a sweep has no use for them
        assert [listener for listener in found if not listener.is_loopback] == []
        for listener in found:
            told = answers(listener) - {UNKNOWN}
            assert told, listener
            assert told <= REFUSED, listener
    finally:
        driver.send_signal(signal.SIGINT)
        status = driver.wait(timeout=100)
    assert status == 130, (home / "driver.log").read_text()


def test_the_list_of_listening_sockets_has_those_of_children_and_tells_loopback_from_the_rest() -> None:
    script = (
        "import socket, sys; s = socket.create_server(('', 0)); print(s.getsockname()[1], flush=True); sys.stdin.read()"
    )
    with (
        socket.create_server(("::1", 0), family=socket.AF_INET6) as own,
        subprocess.Popen([sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child,
    ):
        assert child.stdout is not None
        port = int(child.stdout.readline())
        reach = {listener.port: listener.is_loopback for listener in listeners(child.pid)}
        assert reach == {port: False}
        assert {own.getsockname()[1]: True, port: False}.items() <= {
            listener.port: listener.is_loopback for listener in listeners(os.getpid())
        }.items()
        child.communicate()
