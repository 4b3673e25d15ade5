"""A driver that is killed in the middle of a sweep, and a resume that also widens it: nothing is trained twice."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow.dataset
import pytest

from orchestrator.store import Store

pytestmark = [pytest.mark.ray, pytest.mark.timeout(600)]

# Learning rates and seeds of the sweep that is killed: 8 trials, and 200 where there is time for them.
SIZES = [(4, 2), *([(20, 10)] if os.environ.get("ADAPTUNE_CHAOS") else [])]


def adaptune(home: Path, *arguments: str) -> subprocess.Popen[str]:
    with (home / "answer.json").open("w") as answer, (home / "log").open("a") as log:
        command = [sys.executable, "-m", "adaptune", *arguments, "--json"]
        return subprocess.Popen(command, cwd=home, stdout=answer, stderr=log, text=True)


def wait_for_records(home: Path, store: Store, number: int, driver: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 300
    while not store.exists() or len(store.statuses()) < number:
        assert driver.poll() is None, (home / "log").read_text()
        assert time.monotonic() < deadline, "no trial ended in time"
        time.sleep(0.05)


@pytest.mark.parametrize(("rates", "seeds"), SIZES)
def test_a_killed_driver_s_sweep_is_resumed_wider_and_trains_exactly_what_has_no_record(
    home: Path, write_sweep: Any, rates: int, seeds: int
) -> None:
    def declare(file: str, rates: int, seeds: int) -> str:
        grid = [round(1e-4 * (number + 1), 6) for number in range(rates)]
        space = {"num_epochs": 1, "batch_size": 8, "learning_rate": {"grid": grid}}
        return str(write_sweep(file, seeds=list(range(seeds)), space=space, methods=["layernorm"]))

    driver = adaptune(home, "run", declare("sweep.yaml", rates, seeds))
    store = Store(home / "sweeps" / "small")
    wait_for_records(home, store, rates * seeds // 4, driver)
    os.kill(driver.pid, signal.SIGKILL)
    assert driver.wait(timeout=60) == -signal.SIGKILL

    before = {record.trial_id: record for record in Store(store.uri).records()}
    finished = Store(store.uri).finished_ids()
    assert rates * seeds // 4 <= len(finished) < rates * seeds
    resumed = adaptune(home, "resume", str(store.uri), declare("wider.yaml", rates + 1, seeds + 1))
    assert resumed.wait(timeout=400) == 0, (home / "log").read_text()

    answer = json.loads((home / "answer.json").read_text())
    planned = (rates + 1) * (seeds + 1)
    assert answer["trained"] == planned - len(finished)
    assert answer["counts"] == {"completed": planned}
    rows = pyarrow.dataset.dataset(home / "sweeps" / "small" / "trials").to_table()
    ids = Counter(rows["trial_id"].to_pylist())
    assert ids == dict.fromkeys(store.plan_table()["trial_id"].to_pylist(), 1)
    assert len(ids) == planned
    from mlflow import MlflowClient  # half a second that collecting the tests need not take

    client = MlflowClient(f"sqlite:///{home / 'sweeps' / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("small")
    assert experiment is not None
    runs = client.search_runs([experiment.experiment_id], max_results=1000)
    assert Counter(run.info.status for run in runs) == {
        "FINISHED": 1 + (rates + 1) + planned
    }  # sweep, configurations, trials
    assert {run.data.tags.get("adaptune.trial_id") for run in runs} == {*ids, None}
    after = {record.trial_id: record for record in Store(store.uri).records()}
    assert {trial_id: after[trial_id] for trial_id in before} == before
