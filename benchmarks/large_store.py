"""What questions cost of a store with 100,000 trials of ten epochs, and of 5,000 runs through MLflow's own search.

The trials are made up: ten tasks, five methods, 400 configurations of each, five seeds. They are written as a sweep
writes them, and questions are asked in a process that has just started, as a user's script is.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa

from orchestrator.record import TrialRecord, TrialStatus
from orchestrator.spec.spec import MethodSpec, SweepSpec
from orchestrator.store import Store
from trainables.outcome import EpochReport

TRIALS, RUNS, EPOCHS, SEEDS = 100_000, 5_000, 10, 5
_METHODS = ("full_finetuning", "adapter", "lora", "top_layers", "layernorm")
_TASKS = tuple(f"task-{number}" for number in range(10))
_AT_ONCE = 5_000

# Each as a user writes it, after `results` has been opened.
_QUESTIONS = {
    "best": "results.best()",
    "curve": "results.curve()",
    "compare": "results.compare('adapter', 'lora')",
    "pareto": "results.pareto()",
    "recommend": "results.recommend()",
}
_ASK = """
import json, sys, time
began = time.perf_counter()
import adaptune
took = {"import": time.perf_counter() - began}
def timed(name, ask):
    began = time.perf_counter()
    answer = ask()
    took[name] = time.perf_counter() - began
    return answer
results = timed("open", lambda: adaptune.load_results(sys.argv[1]))
for name, question in json.loads(sys.argv[2]).items():
    timed(name, lambda: eval(question))
print(json.dumps(took))
"""
_SEARCH = """
import json, sys, time
import mlflow
mlflow.set_tracking_uri(sys.argv[1])
began = time.perf_counter()
runs = mlflow.search_runs(search_all_experiments=True, max_results=100_000)
took = time.perf_counter() - began
print(json.dumps({"runs": int(runs["tags.adaptune.trial_id"].notna().sum()), "search_runs": took}))
"""


def measure() -> dict[str, float]:
    """Seconds of each question, and of MLflow's answer to the first of them: all runs, as a table."""
    with tempfile.TemporaryDirectory() as folder:
        store = _write(Path(folder) / "store")
        asked = _run(_ASK, store.uri, json.dumps(_QUESTIONS))
        uri = f"sqlite:///{folder}/mlflow.db"
        _fill_mlflow(uri)
        searched = _run(_SEARCH, uri)
    return {
        "trials": TRIALS,
        **{f"{name}_s": seconds for name, seconds in asked.items()},
        "mlflow_runs": searched["runs"],
        "mlflow_search_runs_s": searched["search_runs"],
    }


def records(count: int) -> Iterator[TrialRecord]:
    """So many trials, all seeds of a configuration one after the other, each as a sweep records it."""
    rng = np.random.default_rng(0)
    for number in range(count):
        configuration, seed = divmod(number, SEEDS)
        setting, place = divmod(configuration, len(_TASKS) * len(_METHODS))
        task, method = _TASKS[place % len(_TASKS)], _METHODS[place // len(_TASKS)]
        size = 2 ** (setting % 8)
        scores = 0.9 - 0.1 / size - 0.3 * 0.5 ** np.arange(1, EPOCHS + 1) + rng.normal(0, 0.01, EPOCHS)
        yield TrialRecord(
            sweep="large",
            trial_id=f"t{number:07d}",
            config_id=f"c{configuration:07d}",
            task=task,
            backbone="minilm",
            method=method,
            seed=seed,
            status=TrialStatus.COMPLETED,
            hyperparameters={"learning_rate": 1e-5 * (1 + setting), "num_epochs": EPOCHS, "size": size},
            trained_params=1_000 * size,
            trained_params_without_head=1_000 * size - 500,
            total_params=22_713_216,
            metric="accuracy",
            validation_score=float(scores[-1]),
            test_score=float(scores[-1] + rng.normal(0, 0.01)),
            best_epoch=EPOCHS,
            duration_s=10.0,
            examples_per_second=500.0,
            pack_size=16.0,
            peak_memory_bytes=500_000_000,
            started_at="2026-01-02T03:04:05.678+00:00",
            engine="host/cpu",
            provenance={"commit": "0" * 40, "device": "cpu", "torch": "2", "data_fingerprint": task},
            validation={"accuracy": float(scores[-1]), "loss": 0.5},
            test={"accuracy": float(scores[-1]), "loss": 0.5},
            epochs=tuple(
                EpochReport(
                    epoch=epoch,
                    step=100 * epoch,
                    train_loss=1 / epoch,
                    validation_score=float(score),
                    validation={"accuracy": float(score), "loss": 0.5},
                    duration_s=1.0,
                )
                for epoch, score in enumerate(scores, start=1)
            ),
        )


def _write(folder: Path) -> Store:
    store = Store(folder)
    numbers = range(TRIALS)
    plan = {
        "sweep": pa.array(["large"] * TRIALS, pa.string()),
        "trial_id": pa.array([f"t{number:07d}" for number in numbers], pa.string()),
        "config_id": pa.array([f"c{number // SEEDS:07d}" for number in numbers], pa.string()),
        "task": pa.array([""] * TRIALS, pa.string()),
        "method": pa.array([""] * TRIALS, pa.string()),
        "config": pa.array(["{}"] * TRIALS, pa.string()),
    }
    with store.lock():
        store.begin(_spec().to_json(), pa.table(plan))
        batch: list[TrialRecord] = []
        for record in records(TRIALS):
            batch.append(record)
            if len(batch) == _AT_ONCE:
                store.append(batch)
                batch = []
        store.compact(plan_is_final=True)
    return store


def _spec() -> SweepSpec:
    return SweepSpec(name="large", tasks=("toy/sentiment",), methods=(MethodSpec(method="adapter"),))


def _fill_mlflow(uri: str) -> None:
    from orchestrator.tracking import Tracker

    tracker = Tracker("large", _spec().to_json(), tracking_uri=uri)
    filled = list(records(RUNS))
    tracker.refill(filled)
    tracker.close(TrialStatus.COMPLETED, lambda: filled)


def _run(code: str, *arguments: str) -> dict[str, float]:
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(done.stderr)
    answered: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return answered
