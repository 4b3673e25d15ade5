"""The data plane runs alone: on a machine without Ray, MLflow and Optuna a trial trains from end to end."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

# Finders that do not find the control plane and its libraries, as on a machine where they are not installed.
WITHOUT = """
import importlib, pkgutil, runpy, sys
ABSENT = {"ray", "mlflow", "optuna", "orchestrator", "search_spaces"}
class Without:
    def __init__(self, finder):
        self.finder = finder
    def find_spec(self, name, path=None, target=None):
        return None if name.partition(".")[0] in ABSENT else self.finder.find_spec(name, path, target)
    def __getattr__(self, name):
        return getattr(self.finder, name)
sys.meta_path[:] = [Without(finder) for finder in sys.meta_path]
for name in ABSENT:
    try:
        __import__(name)
    except ModuleNotFoundError:
        continue
    raise SystemExit(f"{name} is not hidden")
try:
    runpy.run_module("trainables", run_name="__main__", alter_sys=True)
except SystemExit as end:
    if end.code:
        raise
import trainables
rooms = [room.name for room in pkgutil.walk_packages(trainables.__path__, "trainables.")]
for room in rooms:
    importlib.import_module(room)
print("rooms:", *rooms, file=sys.stderr)
found = {name.partition(".")[0] for name in sys.modules} & ABSENT
assert not found, found
"""


def test_a_trial_trains_and_every_room_opens_without_ray_mlflow_optuna_and_the_orchestrator(
    tiny_bert: Path, task_folder: Callable[..., Path], cache_dir: Path
) -> None:
    arguments = f"--task {task_folder()} --backbone {tiny_bert} --option adapter_size=4 --num-epochs 2 --threads 1"
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT, *arguments.split(), "--max-length", "16", "--device", "cpu"],
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
        env={**os.environ, "ADAPTUNE_CACHE": str(cache_dir), "HF_HUB_OFFLINE": "1"},
    )
    assert done.returncode == 0, done.stderr
    events = [json.loads(line) for line in done.stdout.splitlines()]
    assert [event["event"] for event in events] == ["epoch", "epoch", "outcome"]
    assert events[-1]["status"] == "completed"
    assert events[-1]["test_score"] is not None
    (rooms,) = [line.split() for line in done.stderr.splitlines() if line.startswith("rooms:")]
    assert "trainables.training.pack" in rooms
