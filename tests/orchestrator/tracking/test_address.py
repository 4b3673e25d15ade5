from __future__ import annotations

import socket
import sys

import pytest

from orchestrator.tracking.address import (
    artifact_location,
    default_tracking_uri,
    free_port,
    given_tracking_uri,
    ui_command,
    ui_environment,
)
from trainables.faults import FaultsError


def test_the_environment_says_where_mlflow_is_kept(monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://tracking:5000")
    assert default_tracking_uri() == "http://tracking:5000"


def test_by_default_mlflow_is_kept_beside_the_sweeps(monkeypatch, tmp_path):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.chdir(tmp_path)
    assert default_tracking_uri() == f"sqlite:///{tmp_path}/sweeps/mlflow.db"
    assert artifact_location(default_tracking_uri()) == f"{tmp_path}/sweeps/mlartifacts"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("uri", ["http://tracking:5000", "postgresql://u:p@host/db", "sqlite:///:memory:"])
def test_elsewhere_the_server_decides_where_artifacts_go(uri):
    assert artifact_location(uri) is None


def test_the_pages_are_served_to_this_machine_only():
    command = ui_command("sqlite:////data/sweeps/mlflow.db", port=5123)
    assert command[:4] == [sys.executable, "-m", "mlflow", "server"]
    options = dict(zip(command[4::2], command[5::2], strict=True))
    assert options == {
        "--default-artifact-root": "/data/sweeps/mlartifacts",
        "--artifacts-destination": "/data/sweeps/mlartifacts",
        "--host": "127.0.0.1",
        "--port": "5123",
        "--workers": "1",
    }


def test_without_a_port_a_free_one_is_taken():
    command = ui_command("sqlite:////data/mlflow.db")
    with socket.socket() as server:
        server.bind(("127.0.0.1", int(command[command.index("--port") + 1])))
    assert free_port() > 0


def test_a_tracking_server_has_its_own_pages():
    with pytest.raises(FaultsError, match="open http://tracking:5000"):
        ui_command("http://tracking:5000")


def test_the_store_of_the_pages_is_no_argument_of_their_process(tmp_path):
    uri = "postgresql://user:secret@host/db"
    assert ui_environment(uri)["MLFLOW_BACKEND_STORE_URI"] == uri
    assert not any("secret" in part for part in ui_command(uri, port=5123))


@pytest.mark.parametrize("uri", ["sqlite:///{home}mlflow.db", "{home}mlruns"])
def test_a_path_may_be_in_the_home_folder(uri, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert given_tracking_uri(uri.format(home="~/")) == uri.format(home=f"{tmp_path}/")


def test_a_password_is_for_the_environment(monkeypatch):
    uri = "postgresql://user:secret@host/db"
    with pytest.raises(FaultsError, match=r"postgresql://user:\*\*\*@host/db.*PGPASSWORD.*MLFLOW_TRACKING_URI"):
        given_tracking_uri(uri)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    assert given_tracking_uri(None) == uri
    assert given_tracking_uri("postgresql://user@host/db") == "postgresql://user@host/db"
