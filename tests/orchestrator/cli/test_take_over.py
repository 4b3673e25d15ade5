"""A driver whose store another one takes over in the middle of its sweep, as a user sees it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from orchestrator.cli import main
from orchestrator.run import sweep as run
from orchestrator.scheduling.early_end import EarlyEnd
from orchestrator.store import Store
from orchestrator.store.files import Folder

ROOT = Path(__file__).resolve().parents[3]


def test_where_no_second_driver_can_be_kept_out_a_sweep_is_refused_without_the_users_word(
    home: Path, write_sweep: Any, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Folder, "is_local", False)
    monkeypatch.setattr(run, "_train", lambda *_: EarlyEnd(signal=signal.SIGINT))
    sweep = write_sweep()
    for command in (["run", sweep, "--store", "here"], ["resume", "here"]):
        assert main(command) == 2
        said = capsys.readouterr()
        assert "must be a place that keeps a second driver out" in said.err
        assert "say so with --only-driver" in said.err
        assert main([*command, "--only-driver"]) == 130
        assert "go on with:  adaptune resume here --only-driver\n" in capsys.readouterr().out
    assert main(["status", "here"]) == 0


@pytest.mark.ray
@pytest.mark.timeout(300)
@pytest.mark.thorough
def test_a_driver_that_was_taken_over_ends_with_one_clear_error_and_leaves_the_rest_to_the_other(
    home: Path, write_sweep: Any
) -> None:
    sweep = write_sweep(seeds=list(range(40)), space={"num_epochs": 30, "learning_rate": 1e-3, "batch_size": 4})
    driver = subprocess.Popen(
        [sys.executable, "-m", "adaptune", "run", sweep],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    store = Store("sweeps/small")
    try:
        while not (store.exists() and store.statuses()):
            assert driver.poll() is None, driver.communicate()
            time.sleep(0.2)
        with store.lock(take_over=True):
            there = store.statuses()
            _, err = driver.communicate(timeout=120)
            assert store.statuses() == there
            assert store.holder().pid == os.getpid()
    finally:
        driver.kill()
        driver.communicate()
    assert driver.returncode == 2
    assert f"process {os.getpid()} on" in err
    assert "has taken this store over" in err
    assert "Traceback" not in err
    # Its run in MLflow is the other driver's too, and goes on.
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{home / 'sweeps' / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("small")
    (parent,) = client.search_runs([experiment.experiment_id], "tags.`adaptune.kind` = 'sweep'")
    assert parent.info.status == "RUNNING"
    assert store.holder() is None
