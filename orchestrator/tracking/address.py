"""Where MLflow is kept, and how to look at it."""

from __future__ import annotations

import os
import socket
import sys
from pathlib import Path

from orchestrator.secrets import masked, tracking_faults
from trainables.data.paths import given_path
from trainables.faults import FaultsError

LOOPBACK = "127.0.0.1"
_SQLITE = "sqlite:///"


def default_tracking_uri() -> str:
    """`MLFLOW_TRACKING_URI` where it is set, else the SQLite database `sweeps/mlflow.db` below the working folder."""
    return os.environ.get("MLFLOW_TRACKING_URI") or f"{_SQLITE}{Path.cwd() / 'sweeps' / 'mlflow.db'}"


def given_tracking_uri(tracking_uri: str | None) -> str:
    """The tracking store that was named, or `default_tracking_uri()`, `~` expanded.

    Raises `FaultsError` where one is named that holds a password: in the environment it may.
    """
    if tracking_uri is not None and (faults := tracking_faults("the tracking URI", tracking_uri)):
        raise FaultsError("tracking", faults)
    uri = tracking_uri or default_tracking_uri()
    kind = _SQLITE if uri.startswith(_SQLITE) else ""
    path = uri.removeprefix(kind)
    return f"{kind}{given_path('tracking', 'the tracking URI', path)}" if path.startswith("~") else uri


def database_file(tracking_uri: str) -> Path | None:
    """The file of a SQLite tracking store; None for any other kind."""
    if not tracking_uri.startswith(_SQLITE) or tracking_uri.removeprefix(_SQLITE) in ("", ":memory:"):
        return None
    return Path(tracking_uri.removeprefix(_SQLITE)).absolute()


def artifact_location(tracking_uri: str) -> str | None:
    """Where artifacts go: beside a SQLite database; None where the tracking server decides."""
    database = database_file(tracking_uri)
    return str(database.parent / "mlartifacts") if database else None


def ui_command(tracking_uri: str, port: int | None = None) -> list[str]:
    """The command line of MLflow's own pages over a tracking store, served to this machine only.

    The store itself is named by `ui_environment`: everybody on this machine can read the arguments of a process.
    Without a port, one that is free now. Raises `FaultsError` for a tracking server, which has its own pages.
    """
    if tracking_uri.startswith(("http://", "https://")):
        raise FaultsError("tracking", [f"a tracking server shows its own pages, so open {masked(tracking_uri)}"])
    command = [sys.executable, "-m", "mlflow", "server"]
    if location := artifact_location(tracking_uri):
        command += ["--default-artifact-root", location, "--artifacts-destination", location]
    return [*command, "--host", LOOPBACK, "--port", str(free_port() if port is None else port), "--workers", "1"]


def ui_environment(tracking_uri: str) -> dict[str, str]:
    """The variables that tell MLflow's pages what to show."""
    # Its background jobs serve other uses of MLflow and cost a process each.
    quiet = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}
    # A process of its own has nobody else to write its log.
    return {"MLFLOW_BACKEND_STORE_URI": tracking_uri, "MLFLOW_CONFIGURE_LOGGING": "true", **quiet}


def free_port() -> int:
    """A port of the loopback interface that nothing listens on now."""
    with socket.socket() as probe:
        probe.bind((LOOPBACK, 0))
        return int(probe.getsockname()[1])
