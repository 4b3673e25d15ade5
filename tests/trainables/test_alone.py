"""The data plane runs alone: on a machine without Ray, MLflow and Optuna a trial trains from end to end.

So does the GPU's benchmark open, which does without `datasets` too; both in one process, for loading torch takes long.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.compiled import cache_with_kernels

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
BARRED = ("datasets", "adaptune")  # None in sys.modules makes an import of that name fail, and of nothing else
sys.modules.update(dict.fromkeys(BARRED))
import benchmarks.gpu
files = [file.name for file in pkgutil.iter_modules(benchmarks.gpu.__path__, "benchmarks.gpu.")]
for file in files:
    importlib.import_module(file)
from benchmarks.__main__ import default_names
print("files:", *files, len(default_names()), file=sys.stderr)
for name in BARRED:
    del sys.modules[name]
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


@pytest.mark.timeout(180)  # a fresh interpreter loads torch and transformers
@pytest.mark.thorough
def test_a_trial_trains_and_every_room_opens_without_ray_mlflow_optuna_and_the_orchestrator(
    tiny_bert: Path, task_folder: Callable[..., Path], tmp_path: Path
) -> None:
    arguments = f"--task {task_folder()} --backbone {tiny_bert} --option adapter_size=4 --num-epochs 2 --threads 1"
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT, *arguments.split(), "--max-length", "16", "--device", "cpu"],
        capture_output=True,
        text=True,
        timeout=150,
        check=False,
        cwd=Path(__file__).parents[2],
        env={**os.environ, "ADAPTUNE_CACHE": str(cache_with_kernels(tmp_path / "cache")), "HF_HUB_OFFLINE": "1"},
    )
    assert done.returncode == 0, done.stderr
    events = [json.loads(line) for line in done.stdout.splitlines()]
    assert [event["event"] for event in events] == ["epoch", "epoch", "outcome"]
    assert events[-1]["status"] == "completed"
    assert events[-1]["test_score"] is not None
    (rooms,) = [line.split() for line in done.stderr.splitlines() if line.startswith("rooms:")]
    assert "trainables.training.pack" in rooms
    (files,) = [line.split() for line in done.stderr.splitlines() if line.startswith("files:")]
    assert "benchmarks.gpu.opponent_process" in files
    assert int(files[-1]) > 3  # the benchmarks that there are beside it
