"""A Ray that cannot be had ends in one clear fault, and nothing of it stays. No Ray is started here."""

from __future__ import annotations

import json
import logging
import socket
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import pytest
import ray
from ray._private import services

import adaptune
from orchestrator.cli import main
from orchestrator.scheduling.ray_session import connect, ray_session
from trainables.faults import FaultsError

LOCAL = "Ray must start on this machine"


@pytest.fixture
def refusing(monkeypatch: pytest.MonkeyPatch) -> Callable[[BaseException], list[dict[str, Any]]]:
    """`refusing(error)`: every start of Ray ends with it; returns what it was asked to start with."""
    asked: list[dict[str, Any]] = []

    def refuse(error: BaseException) -> list[dict[str, Any]]:
        def init(**options: Any) -> None:
            asked.append(options)
            raise error

        monkeypatch.setattr(ray, "init", init)
        monkeypatch.setattr(ray, "is_initialized", lambda: False)
        return asked

    return refuse


@pytest.mark.parametrize(
    ("address", "error", "told"),
    [
        (None, RuntimeError("The node timed out\nduring startup."), f"{LOCAL}, but it does not (RuntimeError: during"),
        (None, OSError(28, "No space left on device"), "(OSError: [Errno 28] No space left on device); free memory"),
        (None, TimeoutError(), "(TimeoutError); free memory and room in /dev/shm"),
        (None, FileNotFoundError(2, "No such file", "raylet"), "'raylet'"),
        ("auto", ConnectionError("x" * 9000), "xxx...); see that it runs there"),
    ],
)
def test_whatever_ray_raises_is_one_fault_with_its_last_line_and_a_remedy(
    address: str | None,
    error: Exception,
    told: str,
    refusing: Callable[[BaseException], Any],
    caplog: pytest.LogCaptureFixture,
) -> None:
    refusing(error)
    caplog.set_level(logging.DEBUG, "orchestrator.scheduling.ray_session")
    with pytest.raises(FaultsError) as refusal, ray_session(address, print):
        raise AssertionError("there is no Ray")
    (fault,) = refusal.value.faults
    assert told in fault
    assert "\n" not in fault
    assert len(fault) < 700
    assert refusal.value.__cause__ is error
    (line,) = [record for record in caplog.records if record.exc_info]
    assert (line.levelno, line.exc_info[1]) == (logging.DEBUG, error)  # type: ignore[index]


def test_a_ray_that_is_put_together_in_another_way_starts_with_all_it_has(monkeypatch: pytest.MonkeyPatch) -> None:
    begun = []

    def init(**options: Any) -> None:
        begun.append(services.start_api_server)
        _, _, _ = services.start_api_server()  # it gives three things now

    def start_api_server() -> tuple[str, None, str]:
        return "", None, ""

    monkeypatch.setattr(services, "start_api_server", start_api_server)
    monkeypatch.setattr(ray, "init", init)
    connect(None)
    assert len(begun) == 2
    assert begun[1] is start_api_server


def test_a_ray_that_wants_another_token_is_told_from_one_that_is_not_there_before_ray_prints_of_it_for_long(
    refusing: Callable[[BaseException], Any],
) -> None:
    def answer(details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler[Any, Any]:
        def refuse(request: bytes, context: grpc.ServicerContext) -> bytes:
            context.abort(grpc.StatusCode.UNAUTHENTICATED, "no")
            return b""

        return grpc.unary_unary_rpc_method_handler(refuse)

    asked = refusing(AssertionError("Ray is not asked"))
    server = grpc.server(ThreadPoolExecutor(1))
    server.add_generic_rpc_handlers([type("Every", (grpc.GenericRpcHandler,), {"service": lambda _, d: answer(d)})()])
    address = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    server.start()
    try:
        with pytest.raises(FaultsError) as refusal:
            connect(address)
    finally:
        server.stop(None).wait()
    (fault,) = refusal.value.faults
    assert f"{address} cannot be joined (PermissionError: it wants a token, and not the one it was given" in fault
    assert "RAY_AUTH_TOKEN_PATH" in fault
    assert asked == []


@pytest.mark.parametrize("form", ["127.0.0.1:{port}", "ray://127.0.0.1:{port}"])
@pytest.mark.thinned(1)
def test_an_address_where_nobody_listens_is_refused_before_ray_tries_for_minutes(
    form: str, refusing: Callable[[BaseException], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("orchestrator.scheduling.ray_session.ANSWER_WITHIN_S", 1.0)  # who only listens is waited for
    asked = refusing(AssertionError("Ray is not asked"))
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))  # and does not listen
        address = form.format(port=bound.getsockname()[1])
        with pytest.raises(FaultsError, match=f"but {address} cannot be joined .ConnectionRefusedError"):
            connect(address)
        assert asked == []
        bound.listen()
        with pytest.raises(FaultsError, match="AssertionError"):
            connect(address)
    assert asked[0]["address"] == address


def test_an_interrupt_stays_one(refusing: Callable[[BaseException], Any]) -> None:
    refusing(KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt), ray_session(None, print):
        pass


def test_with_a_long_tmpdir_ray_starts_in_a_short_folder_that_goes_with_it(
    refusing: Callable[[BaseException], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("RAY_TMPDIR", raising=False)
    monkeypatch.setenv("TMPDIR", f"/tmp/{'x' * 120}")
    asked, told = refusing(RuntimeError("no")), []
    with pytest.raises(FaultsError), ray_session(None, told.append):
        pass
    folder = asked[0]["_temp_dir"]
    assert folder in told[0]
    assert not Path(folder).exists()
    with pytest.raises(FaultsError), ray_session("auto", told.append):
        pass
    assert "_temp_dir" not in asked[1]  # one that runs has its sockets already
    assert len(told) == 1


def test_the_command_line_ends_with_the_fault_and_without_a_traceback(
    refusing: Callable[[BaseException], Any],
    values: dict[str, Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    refusing(RuntimeError("Traceback (most recent call last):\nthe port is taken"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    Path("sweep.json").write_text(json.dumps(values))
    assert main(["run", "sweep.json"]) == 2
    shown = capsys.readouterr()
    assert LOCAL in shown.err
    assert "the port is taken" in shown.err
    assert "Traceback" not in shown.out + shown.err
    assert not Path("sweeps/mlflow.db").exists()  # nothing has begun
    assert main(["status", "sweeps/small"]) == 0  # and can be resumed


def test_a_ray_that_cannot_be_imported_is_a_fault_too(
    values: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "orchestrator.scheduling.tuner", None)  # as where an import in it fails
    with pytest.raises(FaultsError, match="Ray must be installed whole") as refusal:
        adaptune.run_sweep(values, tmp_path / "store", tracking_uri=f"sqlite:///{tmp_path}/mlflow.db")
    assert isinstance(refusal.value.__cause__, ImportError)


def test_the_doctor_says_where_ray_would_work(monkeypatch: pytest.MonkeyPatch) -> None:
    from orchestrator.cli import doctor

    monkeypatch.delenv("RAY_TMPDIR", raising=False)
    monkeypatch.setenv("TMPDIR", f"/tmp/{'x' * 120}")
    finding = doctor._cluster(None)
    assert finding.ok
    assert "TMPDIR is too long for Ray's sockets" in finding.found
    monkeypatch.setattr("orchestrator.scheduling.ray_folder.SHORT_PLACES", ("/proc",))
    (finding,) = doctor._guarded("cluster", lambda: [doctor._cluster(None)])
    assert not finding.ok
    assert "set RAY_TMPDIR to a short folder" in finding.found
