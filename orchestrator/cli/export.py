"""`adaptune export`: the weights of the setting to ship.

A sweep keeps records, not the weights of its thousands of trials. A seed fixes a trial, so the chosen one is trained
again, its scores are held against its record, and its weights are kept.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from orchestrator.cli.screen import console
from orchestrator.record import TrialStatus
from orchestrator.store import Store
from orchestrator.sweep import load_results
from trainables.config import TrialConfig
from trainables.faults import FaultsError, unknown_name


def export_adapter(store: str, *, task: str | None, trial: str | None, out: str | None, as_json: bool) -> int:
    """Train the chosen trial once more and save it; exit status 1 where it failed this time."""
    # Here: only this command of the store's readers trains.
    from trainables.engine import Engine

    opened = Store(store)
    chosen = _choose(store, task, trial)
    if out is None and opened.filesystem.type_name != "local":
        raise FaultsError("export", [f"--out: is required, since {opened.uri} is no local folder"])
    folder = Path(out) if out is not None else Path(opened.path) / "adapters" / chosen["trial_id"]
    planned = opened.plan_table().to_pylist()
    config = TrialConfig.from_dict(
        json.loads(next(r["config"] for r in planned if r["trial_id"] == chosen["trial_id"]))
    )
    screen = console(stderr=as_json)
    screen.print(f"training {chosen['method']} on {chosen['task']} again, seed {chosen['seed']}")
    threads = (chosen["provenance"] or {}).get("num_threads")
    outcome = Engine(num_threads=int(threads) if threads else None).run(config, save_to=folder)
    if outcome.error is not None:
        screen.print(outcome.error, markup=False)
        return 1
    same = outcome.validation_score == chosen["validation_score"] and outcome.test_score == chosen["test_score"]
    if as_json:
        answer = {
            "folder": str(folder),
            "trial_id": chosen["trial_id"],
            "task": chosen["task"],
            "validation_score": outcome.validation_score,
            "test_score": outcome.test_score,
            "equals_record": same,
        }
        print(json.dumps(answer))
        return 0
    recorded = f"recorded {_scores(chosen['validation_score'], chosen['test_score'])}"
    verdict = (
        "as recorded" if same else f"{recorded}: another kind of device, other package versions or other pack-mates"
    )
    screen.print(f"{_scores(outcome.validation_score, outcome.test_score)}, {verdict}")
    screen.print(str(folder), soft_wrap=True)
    return 0


def _choose(store: str, task: str | None, trial: str | None) -> dict[str, Any]:
    """The record to export: the named trial, or the recommended configuration's replicate best on validation."""
    results = load_results(store)
    completed = {r["trial_id"]: r for r in results.trials().to_pylist() if r["status"] == TrialStatus.COMPLETED.value}
    if trial is not None:
        if trial not in completed:
            raise FaultsError("export", [f"--trial: {unknown_name('completed trial', trial, completed)}"])
        return completed[trial]
    recommended = {row["task"]: row for row in results.recommend().to_pylist()}
    if not recommended:
        raise FaultsError("export", [f"there must be a completed trial to export, but {store} holds none"])
    if task is None and len(recommended) > 1:
        raise FaultsError("export", [f"--task: is required where a sweep has several: {', '.join(recommended)}"])
    if task is not None and task not in recommended:
        raise FaultsError("export", [f"--task: {unknown_name('task with completed trials', task, recommended)}"])
    row = recommended[task] if task is not None else next(iter(recommended.values()))
    replicates = [r for r in completed.values() if r["config_id"] == row["config_id"]]
    # Local: the metric's direction is asked only here.
    from trainables.metrics import get

    sign = 1 if get(row["metric"]).mode == "max" else -1
    return max(replicates, key=lambda r: (sign * r["validation_score"], -r["seed"]))


def _scores(validation: float | None, test: float | None) -> str:
    return f"validation {validation:.4f}" + ("" if test is None else f", test {test:.4f}")
