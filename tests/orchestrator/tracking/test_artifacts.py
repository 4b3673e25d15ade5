"""Files of a trial in its own MLflow run, and nothing made where there is none."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
from mlflow.tracking.client import MlflowClient

from orchestrator.record import TrialStatus
from orchestrator.tracking import log_trial_artifacts


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "files").mkdir()
    (tmp_path / "files" / "ablation.csv").write_text("score\n0.5\n")
    return tmp_path / "files"


def test_they_go_to_the_run_of_the_trial_and_may_be_replaced(start, record, look, tracking_uri, folder):
    tracker = start()
    tracker.trial_ended(record("a"))
    tracker.trial_ended(record("b"))
    assert tracker.close(TrialStatus.COMPLETED)
    assert log_trial_artifacts("quickstart", "b", folder, tracking_uri=tracking_uri)
    (folder / "ablation.csv").write_text("score\n0.75\n")
    assert log_trial_artifacts("quickstart", "b", folder, tracking_uri=tracking_uri)
    client = MlflowClient(tracking_uri=tracking_uri)
    runs = look()[1]
    assert runs["b"].status == "FINISHED"
    assert [file.path for file in client.list_artifacts(runs["b"].run_id)] == ["ablation.csv"]
    assert client.list_artifacts(runs["a"].run_id) == []
    assert Path(client.download_artifacts(runs["b"].run_id, "ablation.csv")).read_text() == "score\n0.75\n"


def test_where_there_is_no_such_run_nothing_is_made(tracking_uri, tmp_path, folder):
    assert not log_trial_artifacts("quickstart", "a", folder, tracking_uri=tracking_uri)
    client = MlflowClient(tracking_uri=tracking_uri)
    assert client.get_experiment_by_name("quickstart") is None
    assert not log_trial_artifacts("quickstart", "a", folder, tracking_uri=f"sqlite:///{tmp_path}/none/mlflow.db")
    assert not (tmp_path / "none").exists()


def test_an_outage_costs_a_warning(window, folder, caplog, monkeypatch):
    def down() -> None:
        raise ConnectionError("http://me:hunter2@host: connection refused")

    monkeypatch.setattr(window, "connect", down)
    with caplog.at_level(logging.WARNING):
        assert not log_trial_artifacts("quickstart", "a", folder, window=window)
    assert "connection refused" in caplog.text
    assert "hunter2" not in caplog.text
