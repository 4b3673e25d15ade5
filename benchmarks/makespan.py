"""How long a whole sweep takes: `adaptune run` against two opponents on the same cores, at an equal recipe.

The opponent "documented" is Ray Tune with Hugging Face's Trainer as their documentation puts them together; "loop" is
written by someone who knows the Trainer, one process a core, without Ray and MLflow. Model, initial values, number of
steps, batch size, optimizer, seeds and learning rates are the same on all sides (`opponents/recipe.py` says what is
not), and scores are kept as paired differences over trials: a race is fair only where they are equal.

ADAPTUNE_BENCH_TASK names the task folders, ADAPTUNE_BENCH_OPPONENTS the opponents; ADAPTUNE_BENCH_TRIALS and
ADAPTUNE_BENCH_EPOCHS make it shorter.
"""

from __future__ import annotations

import dataclasses
import json
import os
import statistics
import sys
import tempfile
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from adaptune import load_results
from benchmarks import NotMeasuredError, _opponent, _race
from benchmarks._paired import paired_difference
from benchmarks._race import Race, Trial
from trainables.faults import FaultsError

SPLITS = ("validation", "test")
KEYS = ("adapter_size", "learning_rate", "seed")
SCRIPTS = {"loop": "loop.py", "documented": "tune_sweep.py"}
IMPORTED = {
    "loop": ["transformers.trainer"],
    "documented": ["datasets", "mlflow", "ray.tune", "transformers.trainer"],
}
FAULTS = (NotMeasuredError, RuntimeError, FaultsError, OSError)


def measure() -> dict[str, Any]:
    """For each task and side seconds, scores and differences, by names that begin with the task's.

    What went wrong on one task or with one opponent is kept as its reason; the others are measured all the same.
    """
    race = _race.parse(os.environ)
    python = _opponent.opponent_python()
    _opponent.warm_up(sys.executable, ["orchestrator.run.sweep", "orchestrator.scheduling", "trainables.engine.engine"])
    for opponent in race.opponents:
        _opponent.warm_up(python, IMPORTED[opponent])
    measured: dict[str, Any] = {
        "trials": len(race.trials),
        "epochs": race.num_epochs,
        "cores": _cores(),
        **{f"trial_{key}s": [getattr(trial, key) for trial in race.trials] for key in KEYS},
    }
    for reference in race.tasks:
        with tempfile.TemporaryDirectory(prefix="adaptune-makespan-", ignore_cleanup_errors=True) as scratch:
            try:
                _race_on(Path(scratch), reference, race, measured)
            except FAULTS as reason:
                _keep(measured, {f"{Path(reference).name}_not_measured": str(reason)})
            except KeyboardInterrupt:  # hours may have been raced already
                _keep(measured, {f"{Path(reference).name}_not_measured": "interrupted"})
                break
    return measured


def summarize(trained: Sequence[Mapping[str, Any]], expected: Sequence[Trial]) -> dict[str, Any]:
    """A side's seconds of training and its scores, each trial's and their mean, in the order of the trials expected.

    Training lasts from the moment at which the first trial begins until the last one has ended. Raises `RuntimeError`
    where the trials are not the expected ones, each once.
    """
    keys = [tuple(getattr(trial, key) for key in KEYS) for trial in expected]
    given = [tuple(trial[key] for key in KEYS) for trial in trained]
    if sorted(given) != sorted(keys):
        raise RuntimeError(f"should have trained {sorted(keys)}, but trained {sorted(given)}")
    ordered = sorted(trained, key=lambda trial: keys.index(tuple(trial[key] for key in KEYS)))
    training_s = max(trial["ended_at"] for trial in ordered) - min(trial["began_at"] for trial in ordered)
    summary: dict[str, Any] = {
        "training_s": training_s,
        "trial_s": [trial["ended_at"] - trial["began_at"] for trial in ordered],
    }
    for split in SPLITS:
        scores = [trial[f"{split}_score"] for trial in ordered]
        is_measured = None not in scores  # a task may have no test split
        summary[f"mean_{split}_score"] = statistics.fmean(scores) if is_measured else None
        summary[f"{split}_scores"] = scores if is_measured else None
    return summary


def compare(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> dict[str, Any]:
    """How many times as long the opponent takes, and what our scores are more than theirs, with a 95 % interval."""
    compared: dict[str, Any] = {
        "ratio": theirs["s"] / ours["s"],
        "training_ratio": theirs["training_s"] / ours["training_s"],
    }
    for split in SPLITS:
        sides = [side[f"{split}_scores"] for side in (ours, theirs)]
        mean, interval = (None, None) if None in sides else paired_difference(*sides)
        compared[f"{split}_difference"] = mean
        compared[f"{split}_difference_interval"] = interval
    return compared


def _race_on(scratch: Path, reference: str, race: Race, measured: dict[str, Any]) -> None:
    """Race on one task, keeping what is measured as soon as it is."""
    info = _opponent.task_for_both(scratch / "task", reference).info
    if f"{info.name}_adaptune_s" in measured:
        raise NotMeasuredError(f"two tasks are called {info.name}")
    print(f"makespan: {len(race.trials)} trials on {info.name}; adaptune trains ...", file=sys.stderr, flush=True)
    ours = _adaptune_sweep(scratch, race)
    _keep(measured, {f"{info.name}_adaptune_{name}": value for name, value in ours.items()})
    for opponent in race.opponents:
        print(f"makespan: {opponent} trains ...", file=sys.stderr, flush=True)
        settings = {
            "data": str(scratch / "task"),
            "num_labels": info.num_labels,
            "metric": info.metric,
            "trials": [dataclasses.asdict(trial) for trial in race.trials],
            "num_epochs": race.num_epochs,
            "cores": _cores(),
            "storage": str(scratch / f"{opponent}-results"),
            "tracking_uri": f"sqlite:///{scratch / f'{opponent}.db'}",
        }
        prefix = f"{info.name}_{opponent}"
        try:
            done = _opponent.run_opponent(SCRIPTS[opponent], settings, scratch / opponent)
            theirs = {"s": done.seconds, **summarize(done.events, race.trials)}
            found = {**theirs, **compare(ours, theirs)}
        except FAULTS as reason:
            found = {"not_measured": str(reason)}
        _keep(measured, {f"{prefix}_{name}": value for name, value in found.items()})


def _adaptune_sweep(scratch: Path, race: Race) -> dict[str, Any]:
    seeds = list(dict.fromkeys(trial.seed for trial in race.trials))
    configurations = dict.fromkeys((trial.adapter_size, trial.learning_rate) for trial in race.trials)
    sweep = {
        "name": "makespan",
        "backbone": "minilm",
        "tasks": [str(scratch / "task")],
        "seeds": seeds,
        "space": {"num_epochs": race.num_epochs},
        "methods": [{"adapter": {"adapter_size": size, "learning_rate": rate}} for size, rate in configurations],
    }
    path, store = scratch / "sweep.json", scratch / "store"
    path.write_text(json.dumps(sweep), encoding="utf-8")
    places = ["--store", str(store), "--tracking-uri", f"sqlite:///{scratch / 'adaptune.db'}"]
    done = _opponent.run([sys.executable, "-m", "adaptune", "run", str(path), *places], scratch / "adaptune")
    columns = [*KEYS, "validation_score", "test_score", "started_at", "duration_s"]
    trained = []
    for trial in load_results(store).trials().select(columns).to_pylist():
        began_at = datetime.fromisoformat(trial["started_at"]).timestamp()
        trained.append({**trial, "began_at": began_at, "ended_at": began_at + trial["duration_s"]})
    return {"s": done.seconds, **summarize(trained, race.trials)}


def _keep(measured: dict[str, Any], found: Mapping[str, Any]) -> None:
    """Keep it, and say it at once: an interrupted race shall have told what it had."""
    measured |= found
    for name, value in found.items():
        print(f"makespan: {name} = {json.dumps(value)}", file=sys.stderr, flush=True)


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
