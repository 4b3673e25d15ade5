"""Where MLflow is kept, and how to look at it."""

from __future__ import annotations

import os
import socket
import sys
from pathlib import Path
from urllib.parse import urlsplit

from trainables.faults import FaultsError

LOOPBACK = "127.0.0.1"
_SQLITE = "sqlite:///"


def default_tracking_uri() -> str:
    """`MLFLOW_TRACKING_URI` where it is set, else the SQLite database `sweeps/mlflow.db` below the working folder."""
    return os.environ.get("MLFLOW_TRACKING_URI") or f"{_SQLITE}{Path.cwd() / 'sweeps' / 'mlflow.db'}"


def without_password(tracking_uri: str) -> str:
    """A tracking store's address as it may be shown: with three stars for the password that it may hold."""
    password = urlsplit(tracking_uri).password
    return tracking_uri.replace(f":{password}@", ":***@") if password else tracking_uri


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

    Without a port, one that is free now. Raises `FaultsError` for a tracking server, which has its own pages.
    """
    if tracking_uri.startswith(("http://", "https://")):
        raise FaultsError("tracking", [f"a tracking server shows its own pages, so open {tracking_uri}"])
    command = [sys.executable, "-m", "mlflow", "server", "--backend-store-uri", tracking_uri]
    if location := artifact_location(tracking_uri):
        command += ["--default-artifact-root", location, "--artifacts-destination", location]
    return [*command, "--host", LOOPBACK, "--port", str(free_port() if port is None else port), "--workers", "1"]


def free_port() -> int:
    """A port of the loopback interface that nothing listens on now."""
    with socket.socket() as probe:
        probe.bind((LOOPBACK, 0))
        return int(probe.getsockname()[1])
