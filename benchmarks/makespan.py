"""How long a whole sweep takes: `adaptune run` against Ray Tune with Hugging Face's Trainer and adapters, same cores.

A race is fair only at equal scores, so both sides' validation and test scores are kept beside their seconds.
Measured on the task folder that ADAPTUNE_BENCH_TASK names; with ADAPTUNE_BENCH_TUNED set, also against an opponent
who asks for bf16 and for batches of similar length.
"""

from __future__ import annotations

import json
import os
import statistics
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from adaptune import load_results
from benchmarks import _opponent

# Eight trials, in the order in which both sides' lists are given.
GRID: Mapping[str, Sequence[float]] = {"adapter_size": [8, 64], "learning_rate": [1e-3, 3e-4], "seed": [0, 1]}
NUM_EPOCHS = 3


def measure() -> dict[str, Any]:
    """Seconds from the start of each side's command to its end, the ratio of the two, and what was trained."""
    with tempfile.TemporaryDirectory(prefix="adaptune-makespan-", ignore_cleanup_errors=True) as scratch:
        folder = Path(scratch)
        info = _opponent.task_for_both(folder / "task").info
        _opponent.warm_up(_opponent.opponent_python(), ["adapters", "datasets", "mlflow", "ray.tune"])
        _opponent.warm_up(
            sys.executable, ["orchestrator.run.sweep", "orchestrator.scheduling", "trainables.engine.engine"]
        )
        adaptune_s, adaptune = _adaptune_sweep(folder)
        measured = {
            "trials": len(adaptune),
            "cores": _cores(),
            "adaptune_s": adaptune_s,
            **summarize("adaptune", adaptune),
        }
        for prefix, arguments in _opponent.recipes().items():
            print(f"makespan: adaptune took {adaptune_s:.0f} s; the {prefix}opponent trains ...", file=sys.stderr)
            opponent_s, opponent = _opponent_sweep(folder, info.num_labels, prefix, arguments)
            measured |= {
                f"{prefix}opponent_s": opponent_s,
                f"{prefix}ratio": opponent_s / adaptune_s,
                **summarize(f"{prefix}opponent", opponent),
            }
    return measured


def summarize(side: str, trials: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """A side's mean scores and its trials one by one, in the order of the grid.

    Raises `RuntimeError` where the trials are not those of the grid, each once.
    """
    given = [tuple(trial[name] for name in GRID) for trial in trials]
    expected = [
        (size, rate, seed) for size in GRID["adapter_size"] for rate in GRID["learning_rate"] for seed in GRID["seed"]
    ]
    if sorted(given) != sorted(expected):
        raise RuntimeError(f"{side} should have trained {sorted(expected)}, but trained {sorted(given)}")
    ordered = sorted(trials, key=lambda trial: expected.index(tuple(trial[name] for name in GRID)))
    summary: dict[str, Any] = {}
    for split in ("validation", "test"):
        scores = [trial[f"{split}_score"] for trial in ordered]
        measured = None not in scores  # a task may have no test split
        summary[f"{side}_mean_{split}_score"] = statistics.fmean(scores) if measured else None
        summary[f"{side}_{split}_scores"] = scores if measured else None
    return {**summary, f"{side}_trial_s": [trial["seconds"] for trial in ordered]}


def _opponent_sweep(
    folder: Path, num_labels: int, prefix: str, arguments: Mapping[str, bool]
) -> tuple[float, list[dict[str, Any]]]:
    settings = {
        "data": str(folder / "task"),
        "num_labels": num_labels,
        "grid": GRID,
        "num_epochs": NUM_EPOCHS,
        "trainer": arguments,
        "cores": _cores(),
        "storage": str(folder / f"{prefix}ray_results"),
        "tracking_uri": f"sqlite:///{folder / f'{prefix}opponent.db'}",
    }
    done = _opponent.run_opponent("tune_sweep.py", settings, folder / f"{prefix}opponent")
    renamed = {"validation_accuracy": "validation_score", "test_accuracy": "test_score"}
    return done.seconds, [{renamed.get(name, name): value for name, value in trial.items()} for trial in done.events]


def _adaptune_sweep(folder: Path) -> tuple[float, list[dict[str, Any]]]:
    sweep = {
        "name": "makespan",
        "backbone": "minilm",
        "tasks": [str(folder / "task")],
        "seeds": GRID["seed"],
        "space": {"learning_rate": {"grid": GRID["learning_rate"]}, "num_epochs": NUM_EPOCHS},
        "methods": [{"adapter": {"adapter_size": {"grid": GRID["adapter_size"]}}}],
    }
    path, store = folder / "sweep.json", folder / "store"
    path.write_text(json.dumps(sweep), encoding="utf-8")
    places = ["--store", str(store), "--tracking-uri", f"sqlite:///{folder / 'adaptune.db'}"]
    done = _opponent.run([sys.executable, "-m", "adaptune", "run", str(path), *places], folder / "adaptune")
    columns = [*GRID, "validation_score", "test_score", "duration_s"]
    trials = load_results(store).trials().select(columns).rename_columns([*columns[:-1], "seconds"])
    return done.seconds, trials.to_pylist()


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
