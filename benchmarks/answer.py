"""How soon a question is answered where both sides may stop early: the best of 24 configurations, to half a point.

Both sides stop by ASHA with the same settings: `adaptune run` by its own rule, the opponent under Ray Tune with trials
that are written by someone who knows the Trainer (`opponents/asha_sweep.py`). What each chose is judged by a third
sweep that trains every configuration to its end: `regret` is what the best one scores more on validation than the
chosen one. It is the time to an answer, not the engine's speed, which `makespan.py` measures.

ADAPTUNE_BENCH_TASK names the task folders; ADAPTUNE_BENCH_TRIALS the first so many configurations.
"""

from __future__ import annotations

import dataclasses
import json
import os
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from adaptune import load_results
from benchmarks import NotMeasuredError, _opponent
from benchmarks._race import TRIALS_VARIABLE, Trial

SIZES = (8, 64, 16, 128)
LEARNING_RATES = (1e-3, 1e-2, 3e-4, 3e-3, 1e-4, 3e-2)
SEED = 0
NUM_EPOCHS = 3
ASHA = {"grace_period": 1, "reduction_factor": 3}
GOOD_ENOUGH = 0.005

Scores = Mapping[tuple[int, float], float]  # on validation, by adapter size and learning rate


def configurations(count: int | None = None) -> list[Trial]:
    """The trials of the question, in an order in which the first few are far from each other."""
    every = [
        Trial(adapter_size=SIZES[(place + turn) % len(SIZES)], learning_rate=rate, seed=SEED)
        for turn in range(len(SIZES))
        for place, rate in enumerate(LEARNING_RATES)
    ]
    return every[:count]


def measure() -> dict[str, Any]:
    """For each task: seconds of each side's whole command, what it trained, and how far its answer is from the best."""
    references = _opponent.named_tasks(os.environ)
    trials = configurations(_count(os.environ.get(TRIALS_VARIABLE)))
    python = _opponent.opponent_python()
    _opponent.warm_up(sys.executable, ["orchestrator.run.sweep", "orchestrator.scheduling", "trainables.engine.engine"])
    _opponent.warm_up(python, ["ray.tune", "transformers.trainer"])
    measured: dict[str, Any] = {"configurations": len(trials), "epochs": NUM_EPOCHS, "good_enough": GOOD_ENOUGH}
    for reference in references:
        with tempfile.TemporaryDirectory(prefix="adaptune-answer-", ignore_cleanup_errors=True) as scratch:
            _ask(Path(scratch), reference, trials, measured)
    return measured


def regret(chosen: tuple[int, float], complete: Scores) -> float:
    """What the best configuration scores more than the chosen one, both trained to the end."""
    return max(complete.values()) - complete[chosen]


def _count(text: str | None) -> int | None:
    if not text:
        return None
    if not text.isdigit() or not 2 <= int(text) <= len(SIZES) * len(LEARNING_RATES):
        raise NotMeasuredError(f"{TRIALS_VARIABLE} must be a whole number from 2 to 24, but is {text!r}")
    return int(text)


def _ask(scratch: Path, reference: str, trials: Sequence[Trial], measured: dict[str, Any]) -> None:
    info = _opponent.task_for_both(scratch / "task", reference).info
    seconds, asha = _adaptune(scratch, "asha", trials)
    _keep(measured, info.name, "adaptune", {"s": seconds, "trained_epochs": sum(epochs for _, epochs in asha.values())})
    settings = {
        "data": str(scratch / "task"),
        "num_labels": info.num_labels,
        "metric": info.metric,
        "trials": [dataclasses.asdict(trial) for trial in trials],
        "num_epochs": NUM_EPOCHS,
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1,
        "storage": str(scratch / "results"),
        **ASHA,
    }
    done = _opponent.run_opponent("asha_sweep.py", settings, scratch / "opponent")
    theirs = {(event["adapter_size"], event["learning_rate"]): event for event in done.events}
    trained = sum(event["epochs"] for event in theirs.values())
    _keep(measured, info.name, "opponent", {"s": done.seconds, "trained_epochs": trained})
    complete_s, complete = _adaptune(scratch, "none", trials)
    scores = {key: score for key, (score, _) in complete.items()}
    chosen = max(asha, key=lambda key: (asha[key][1], asha[key][0]))
    chosen_by_them = max(theirs, key=lambda key: (theirs[key]["epochs"], theirs[key]["validation_score"]))
    _keep(measured, info.name, "adaptune", {"regret": regret(chosen, scores), "to_the_end_s": complete_s})
    _keep(measured, info.name, "opponent", {"regret": regret(chosen_by_them, scores)})
    measured[f"{info.name}_ratio"] = done.seconds / seconds


def _adaptune(
    scratch: Path, rule: str, trials: Sequence[Trial]
) -> tuple[float, Mapping[tuple[int, float], tuple[float, int]]]:
    """Seconds of a sweep's command; score and epochs of each configuration."""
    sweep = {
        "name": rule,
        "backbone": "minilm",
        "tasks": [str(scratch / "task")],
        "seeds": [SEED],
        "space": {"num_epochs": NUM_EPOCHS},
        "methods": [
            {"adapter": {"adapter_size": each.adapter_size, "learning_rate": each.learning_rate}} for each in trials
        ],
        "early_stopping": {rule: ASHA} if rule == "asha" else rule,
    }
    path, store = scratch / f"{rule}.json", scratch / f"{rule}-store"
    path.write_text(json.dumps(sweep), encoding="utf-8")
    places = ["--store", str(store), "--tracking-uri", f"sqlite:///{scratch / f'{rule}.db'}"]
    done = _opponent.run([sys.executable, "-m", "adaptune", "run", str(path), *places], scratch / rule)
    results = load_results(store)
    columns = ["trial_id", "adapter_size", "learning_rate", "validation_score"]
    epochs: dict[str, int] = {}
    for trial_id in results.epochs()["trial_id"].to_pylist():
        epochs[trial_id] = epochs.get(trial_id, 0) + 1
    return done.seconds, {
        (trial["adapter_size"], trial["learning_rate"]): (trial["validation_score"], epochs[trial["trial_id"]])
        for trial in results.trials().select(columns).to_pylist()
        if trial["validation_score"] is not None
    }


def _keep(measured: dict[str, Any], task: str, side: str, found: Mapping[str, Any]) -> None:
    """Keep it, and say it at once."""
    for name, value in found.items():
        measured[f"{task}_{side}_{name}"] = value
        print(f"answer: {task}_{side}_{name} = {value}", file=sys.stderr, flush=True)
