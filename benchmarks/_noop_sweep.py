"""A sweep whose trials do nothing, by adaptune or by plain Ray Tune: what is left is the keeping of books.

    python -m benchmarks._noop_sweep {adaptune|tune} TRIALS FOLDER

Prints one JSON object: trials a second, from the first trial's start to the last record (MLflow's included), and the
resident memory of the driver's process in the course of it.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import time
from pathlib import Path
from typing import Any

from trainables.device.memory import used_bytes

# Learning rates times seeds; both sides record the same parameters and metrics of each trial.
SEEDS = 10


def main(side: str, trials: int, folder: Path) -> None:
    watch = _Watch(trials)
    {"adaptune": run_adaptune, "tune": run_tune}[side](trials, folder, watch)
    print(json.dumps({"event": side, **watch.summary()}), flush=True)


class _Watch:
    """Counts ended trials, and reads the process's memory after so many of them."""

    def __init__(self, trials: int) -> None:
        self._trials = trials
        self._marks = {max(1, trials // 10): "start", trials // 2: "middle", trials: "end"}
        self._memory: dict[str, int | None] = {}
        self._ended = 0
        self._began = self._finished = 0.0

    def started(self) -> None:
        self._began = self._began or time.perf_counter()

    def ended(self) -> None:
        self.started()
        self._ended += 1
        if mark := self._marks.get(self._ended):
            import torch

            self._memory[mark] = used_bytes(torch.device("cpu"))

    def finished(self) -> None:
        """All that was to be written is written."""
        self._finished = time.perf_counter()

    def summary(self) -> dict[str, Any]:
        if self._ended != self._trials:
            raise RuntimeError(f"{self._trials} trials were to end, but {self._ended} did")
        return {
            "trials": self._trials,
            "seconds": self._finished - self._began,
            **{f"memory_{mark}_bytes": size for mark, size in self._memory.items()},
        }


def run_adaptune(trials: int, folder: Path, watch: _Watch) -> None:
    """`adaptune run` with engines that answer at once: plan, pool, Tune, store and MLflow are the real ones."""
    from benchmarks._noop_engine import NoOpEngineActor
    from orchestrator.run import sweep
    from orchestrator.scheduling import engines

    class Watched(sweep.Silent):
        def trial_started(self, trial: Any) -> None:
            watch.started()

        def trial_ended(self, record: Any) -> None:
            watch.ended()

    engines.EngineActor = NoOpEngineActor  # type: ignore[misc]
    rates = [1e-5 * (number + 1) for number in range(trials // SEEDS)]
    plan, store = sweep.prepare(
        {
            "name": "noop",
            "tasks": ["toy/sentiment"],
            "seeds": list(range(SEEDS)),
            "space": {"num_epochs": 1, "learning_rate": {"grid": rates}},
            "methods": [{"adapter": {"adapter_size": 8}}],
        },
        folder / "store",
    )
    # Without a report, as the other side writes none.
    sweep.execute(plan, store, Watched(), tracking_uri=f"sqlite:///{folder / 'mlflow.db'}", make_report=False)
    watch.finished()


def run_tune(trials: int, folder: Path, watch: _Watch) -> None:
    """Plain Ray Tune at its best for this: a class whose actors are reused, and its own callback for MLflow.

    One core a trial, so that its actors are reused; no logger files, no snapshots.
    """
    os.environ |= {
        "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
        "TUNE_GLOBAL_CHECKPOINT_S": "1000000",
        "RAY_USAGE_STATS_ENABLED": "0",
    }
    import ray
    from ray import tune
    from ray.air.integrations.mlflow import MLflowLoggerCallback

    class NoOp(tune.Trainable):
        def setup(self, config: dict[str, Any]) -> None: ...

        def reset_config(self, new_config: dict[str, Any]) -> bool:
            return True

        def step(self) -> dict[str, Any]:
            return {**METRICS, "done": True}

    class Watched(tune.Callback):
        def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
            watch.started()

        def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
            watch.ended()

    ray.init(address="local", include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
    fixed = {"task": "sentiment", "method": "adapter", "adapter_size": 8, "num_epochs": 1, "batch_size": 32}
    rates = [1e-5 * (number + 1) for number in range(trials // SEEDS)]
    mlflow = MLflowLoggerCallback(tracking_uri=f"sqlite:///{folder / 'mlflow.db'}", experiment_name="noop")
    tune.Tuner(
        tune.with_resources(NoOp, {"cpu": 1}),
        param_space={
            **fixed,
            "learning_rate": tune.grid_search(rates),
            "seed": tune.grid_search(list(range(SEEDS))),
        },
        tune_config=tune.TuneConfig(reuse_actors=True),
        run_config=tune.RunConfig(
            storage_path=str(folder / "ray_results"),
            callbacks=[mlflow, Watched()],
            verbose=0,
            checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),
        ),
    ).fit()
    watch.finished()


METRICS = {
    "validation_score": 0.5,
    "train/loss": 0.7,
    "validation/loss": 0.7,
    "validation/accuracy": 0.5,
    "test_score": 0.5,
}

if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), Path(sys.argv[3]))
