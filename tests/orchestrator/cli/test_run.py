"""`adaptune run` and `resume` on a real Ray, a real store and a real MLflow."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow.dataset
import pytest

from adaptune import load_results
from orchestrator.cli import main
from orchestrator.store import Store
from tests.local_ray import local_ray

pytestmark = [
    pytest.mark.ray,
    pytest.mark.timeout(240),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),  # Ray leaves sockets to the garbage collector
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning"),
]


@pytest.fixture(scope="module", autouse=True)
def _ray_of_one_core(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A Ray that the commands run here join, with one engine; a driver of its own starts one of its own."""
    with local_ray(tmp_path_factory.mktemp("cache"), num_cpus=1):
        yield


def run_command(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> tuple[int, Any]:
    """Exit status and the JSON answer."""
    status = main([*arguments, "--json"])
    output = capsys.readouterr().out.strip().splitlines()
    return status, json.loads(output[-1]) if output else None


def mlflow_runs(home: Path, sweep: str) -> list[Any]:
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{home / 'sweeps' / 'mlflow.db'}")
    experiment = client.get_experiment_by_name(sweep)
    assert experiment is not None
    return list(client.search_runs([experiment.experiment_id], max_results=1000))


def trials(runs: list[Any]) -> list[Any]:
    return [run for run in runs if run.data.tags["adaptune.kind"] == "trial"]


def test_a_sweep_is_trained_once_resumed_for_nothing_and_widened_for_what_is_new(
    home: Path, write_sweep: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    methods = [{"adapter": {"adapter_size": 4}}, "full_finetuning"]
    sweep = write_sweep(methods=methods)
    status, answer = run_command(["run", sweep], capsys)
    assert status == 0
    assert answer["trained"] == 4
    assert answer["counts"] == {"completed": 4}
    store = Store("sweeps/small")
    assert store.statuses().keys() == set(store.plan_table()["trial_id"].to_pylist())
    # Readable without adaptune, a row a trial.
    assert pyarrow.dataset.dataset(home / "sweeps" / "small" / "trials").count_rows() == 4
    for name in ("report.html", "curve.png", "curve.svg", "best.csv", "best.parquet"):
        assert (home / "sweeps" / "small" / "report" / name).stat().st_size > 0
    runs = mlflow_runs(home, "small")
    assert Counter(run.info.status for run in runs) == {"FINISHED": 1 + 2 + 4}  # sweep, configurations, trials
    assert {run.data.tags["adaptune.trial_id"] for run in trials(runs)} == store.statuses().keys()
    scores = {row["trial_id"]: row["validation_score"] for row in load_results("sweeps/small").trials().to_pylist()}

    status, answer = run_command(["run", sweep], capsys)
    assert (status, answer["trained"]) == (0, 0)

    status, answer = run_command(["export", "sweeps/small"], capsys)
    assert status == 0
    assert (answer["equals_record"], answer["weights"]) == (True, "kept")
    kept_weights = (Path(answer["folder"]) / "adapter_model.safetensors").read_bytes()
    chosen_one = {answer["trial_id"]}
    chosen = load_results("sweeps/small").best()["config_id"].to_pylist()
    rows = load_results("sweeps/small").trials().to_pylist()
    kept_trials = {row["trial_id"]: row["config_id"] for row in rows if row["trial_id"] in store.kept_weights()}
    assert sorted(kept_trials.values()) == sorted(chosen)  # one of each method
    arguments = ["export", "sweeps/small", "--method", "full_finetuning", "--format", "transformers"]
    status, answer = run_command(arguments, capsys)
    assert (status, answer["weights"]) == (0, "kept")
    assert answer["folder"].endswith(f"{answer['trial_id']}-transformers")
    assert {path.name for path in Path(answer["folder"]).iterdir()} > {"config.json", "model.safetensors"}
    assert {path.name for path in Path("sweeps/small/adapters").iterdir()} == {Path(answer["folder"]).name, *chosen_one}
    shutil.rmtree("sweeps/small/kept")
    status, answer = run_command(["export", "sweeps/small", "--out", "again"], capsys)
    assert (status, answer["weights"]) == (0, "trained again")
    assert answer["equals_record"]  # a seed fixes a trial: trained again, it scores what was recorded
    assert (Path(answer["folder"]) / "adapter_model.safetensors").stat().st_size == len(kept_weights)

    wider = write_sweep("wider.yaml", methods=methods, seeds=[0, 1, 2])
    status, answer = run_command(["resume", "sweeps/small", wider], capsys)
    assert (status, answer["trained"]) == (0, 2)
    rows = load_results("sweeps/small").trials().to_pylist()
    assert len(rows) == 6
    kept = {row["trial_id"]: row["validation_score"] for row in rows if row["trial_id"] in scores}
    assert kept == scores
    assert len(trials(mlflow_runs(home, "small"))) == 6

    assert main(["run", write_sweep(seeds=[7])]) == 2
    assert "a sweep keeps what it has planned" in capsys.readouterr().err


def test_sweeps_that_share_a_store_train_nothing_twice_and_are_each_whole_in_mlflow(
    home: Path, write_sweep: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    first = write_sweep(methods=["layernorm"])
    assert run_command(["run", first], capsys)[1]["trained"] == 2
    other = write_sweep("other.yaml", name="other", seeds=[0, 3], methods=["layernorm"])
    status, answer = run_command(["run", other, "--store", "sweeps/small"], capsys)
    assert (status, answer["trained"], answer["counts"]) == (0, 1, {"completed": 2})
    assert len(load_results("sweeps/small").trials()) == 3
    runs = mlflow_runs(home, "other")
    assert Counter(run.info.status for run in runs) == {"FINISHED": 1 + 1 + 2}
    assert len({run.data.tags["adaptune.trial_id"] for run in trials(runs)}) == 2
    status, answer = run_command(["resume", "sweeps/small", "--sweep", "small"], capsys)
    assert (status, answer["trained"], answer["counts"]) == (0, 0, {"completed": 2})


def test_a_trial_that_fails_is_recorded_with_its_traceback_and_the_status_says_so(
    home: Path, write_sweep: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    methods = [{"adapter": {"adapter_size": 2, "learning_rate": {"grid": [1e-3, 1e30]}}}]
    status, answer = run_command(["run", write_sweep(methods=methods, seeds=[0])], capsys)
    assert status == 1
    assert answer["counts"] == {"completed": 1, "failed": 1}
    rows = load_results("sweeps/small").trials().to_pylist()
    (failed,) = [row for row in rows if row["status"] == "failed"]
    assert "TrainingDivergedError" in failed["error"]
    assert failed["test_score"] is None
    assert Counter(run.info.status for run in trials(mlflow_runs(home, "small"))) == {"FINISHED": 1, "FAILED": 1}


def test_a_budget_ends_a_sweep_in_order_and_resume_trains_the_rest(
    home: Path, write_sweep: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    methods = [{"layernorm": {"learning_rate": {"grid": [1e30, 1e-3]}}}]
    search = {"algorithm": "grid", "max_concurrent_trials": 1}
    sweep = write_sweep(methods=methods, search=search, seeds=[0, 1, 2])
    status, answer = run_command(["run", sweep, "--max-failures", "1", "--max-hours", "9"], capsys)
    assert (status, answer["interrupted"], answer["ended_by"]) == (3, True, "--max-failures 1")
    assert answer["counts"]["failed"] == 1
    assert answer["counts"]["planned"] >= 3
    assert all(run.info.status != "RUNNING" for run in mlflow_runs(home, "small"))
    status, answer = run_command(["resume", "sweeps/small", "--max-failures", "4"], capsys)
    assert (status, answer["ended_by"], answer["counts"]) == (1, None, {"completed": 3, "failed": 3})
    assert main(["run", sweep, "--max-hours", "0", "--max-failures", "0"]) == 2
    assert "max_hours must be" in (refused := capsys.readouterr().err)
    assert "max_failures must be" in refused


def start_driver(home: Path, *arguments: str) -> subprocess.Popen[str]:
    log = (home / "driver.log").open("a")
    return subprocess.Popen([sys.executable, "-m", "adaptune", *arguments], cwd=home, stdout=log, stderr=log, text=True)


def wait_for_records(store: Store, number: int, driver: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 150
    while not store.exists() or len(store.statuses()) < number:
        assert driver.poll() is None, "the sweep ended too early"
        assert time.monotonic() < deadline, "no trial ended in time"
        time.sleep(0.2)


def test_an_interrupted_sweep_is_finished_by_resume_without_training_anything_twice(
    home: Path, write_sweep: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    sweep = write_sweep(space={"num_epochs": 8, "learning_rate": 1e-3, "batch_size": 4})
    driver = start_driver(home, "run", sweep)
    store = Store(home / "sweeps" / "small")
    wait_for_records(store, 2, driver)
    os.kill(driver.pid, signal.SIGINT)
    status = driver.wait(timeout=100)
    log = (home / "driver.log").read_text()
    assert status == 130, log
    assert "trials under way end with the epoch they are in" in log
    assert "adaptune resume" in log
    assert all(run.info.status != "RUNNING" for run in mlflow_runs(home, "small"))
    before = load_results("sweeps/small")
    finished = {row["trial_id"] for row in before.trials().to_pylist() if row["status"] == "completed"}
    planned = store.plan_table().num_rows
    assert 2 <= len(finished) < planned

    status, answer = run_command(["resume", "sweeps/small"], capsys)
    assert status == 0
    assert answer["trained"] == planned - len(finished)
    assert answer["counts"] == {"completed": planned}
    runs = mlflow_runs(home, "small")
    assert Counter(run.info.status for run in runs) == {"FINISHED": 1 + planned // 2 + planned}
    assert len({run.data.tags["adaptune.trial_id"] for run in trials(runs)}) == planned
