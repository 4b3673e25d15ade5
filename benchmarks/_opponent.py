"""What both sides of a race are given: the task, fresh folders, a clock around the whole command.

The opponents' own code is in opponents/ and runs in an environment of its own below build/, made when first needed.
"""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
import time
import venv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet

from benchmarks import NotMeasuredError
from trainables import tasks
from trainables.faults import unknown_name

ROOT = Path(__file__).parent.parent
SCRIPTS = Path(__file__).parent / "opponents"
REQUIREMENTS = SCRIPTS / "requirements.txt"
ENVIRONMENT = ROOT / "build" / "opponents" / "venv"
TASK_VARIABLE = "ADAPTUNE_BENCH_TASK"
OPPONENTS_VARIABLE = "ADAPTUNE_BENCH_OPPONENTS"
# name -> the arguments by which its Trainer departs from the documented defaults, where one trial is raced.
OPPONENTS: Mapping[str, Mapping[str, bool]] = {"loop": {"bf16": True, "group_by_length": True}, "documented": {}}
METRICS = ("accuracy", "f1_and_accuracy")  # that opponents/recipe.py can score by


@dataclass(frozen=True, kw_only=True)
class Finished:
    """A command that ended well."""

    seconds: float  # from before the process was started until after it had ended
    events: Sequence[Mapping[str, Any]]  # the JSON objects with an "event" that it printed, a line each


def named_tasks(environment: Mapping[str, str]) -> list[str]:
    """References of the tasks to measure on, in the order in which they are named.

    Raises `NotMeasuredError` where none is.
    """
    if not (names := _list(environment.get(TASK_VARIABLE, ""))):
        raise NotMeasuredError(f"set {TASK_VARIABLE} to a task folder")
    return names


def named_opponents(environment: Mapping[str, str]) -> list[str]:
    """Who is raced against, all known ones where none is named. Raises `NotMeasuredError` for one that is unknown."""
    names = _list(environment.get(OPPONENTS_VARIABLE, "")) or list(OPPONENTS)
    if faults := [unknown_name("opponent", name, OPPONENTS) for name in names if name not in OPPONENTS]:
        raise NotMeasuredError(f"{OPPONENTS_VARIABLE}: {'; '.join(faults)}")
    return names


def task_for_both(folder: Path, reference: str, *, rows: int | None = None) -> tasks.Task:
    """Write a task as a task folder of Parquet files, its training rows cut to the first `rows`.

    Raises `FaultsError` where there is no such task, and `NotMeasuredError` for one that the opponents' recipe is not
    written for.
    """
    task = tasks.load(reference)
    if task.info.kind != "classification" or task.info.metric not in METRICS:
        came = f"{task.info.name} is {task.info.kind} by {task.info.metric}"
        rule = f"classification tasks measured by {' or '.join(METRICS)}"
        raise NotMeasuredError(f"set {TASK_VARIABLE} to {rule}; {came}")
    folder.mkdir(parents=True)
    for split, table in task.splits.items():
        pyarrow.parquet.write_table(table[:rows] if split == "train" else table, folder / f"{split}.parquet")
    (folder / "task.json").write_text(json.dumps(dataclasses.asdict(task.info)), encoding="utf-8")
    return tasks.load(str(folder))


def opponent_python() -> str:
    """The interpreter of the opponents' environment, installed anew where their requirements have changed.

    Raises `NotMeasuredError` where it cannot be installed, as on a machine that reaches no packages.
    """
    python = ENVIRONMENT / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    installed = ENVIRONMENT / "installed.txt"
    wanted = REQUIREMENTS.read_text(encoding="utf-8")
    if installed.exists() and installed.read_text(encoding="utf-8") == wanted:
        return str(python)
    print(f"installing the opponents' libraries into {ENVIRONMENT.relative_to(ROOT)} ...", file=sys.stderr)
    venv.create(ENVIRONMENT, clear=True, with_pip=True)
    pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "-r", str(REQUIREMENTS)]
    done = subprocess.run(pip, capture_output=True, text=True, check=False)
    if done.returncode:
        raise NotMeasuredError(f"the opponents' libraries could not be installed: {_last_line(done.stderr)}")
    installed.write_text(wanted, encoding="utf-8")
    return str(python)


def warm_up(python: str, modules: Sequence[str]) -> None:
    """Import what a side imports, so that its files are in the page cache, as the other side's are."""
    subprocess.run([python, "-c", f"import {', '.join(modules)}"], capture_output=True, check=False)


def run(command: Sequence[str], folder: Path, *, at: Path | None = None) -> Finished:
    """Run a whole command on the CPU in a new folder, or `at` another, with caches of its own that start empty.

    Raises `RuntimeError` with the end of its log where it fails.
    """
    folder.mkdir()
    log = folder / "log.txt"
    environment = {
        name: value for name, value in os.environ.items() if name not in ("MLFLOW_TRACKING_URI", "RAY_ADDRESS")
    }
    environment |= {
        "ADAPTUNE_CACHE": str(folder / "cache"),
        "HF_DATASETS_CACHE": str(folder / "cache"),
        "HF_HUB_OFFLINE": "1",  # everything is at hand; nobody waits for a hub
        "RAY_USAGE_STATS_ENABLED": "0",
        "CUDA_VISIBLE_DEVICES": "",  # both sides on the same cores
    }
    with log.open("w", encoding="utf-8") as errors:
        began = time.perf_counter()
        done = subprocess.run(
            command,
            cwd=at or folder,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            check=False,
        )
        seconds = time.perf_counter() - began
    if done.returncode:
        tail = "\n".join([*done.stdout.splitlines()[-20:], *log.read_text(encoding="utf-8").splitlines()[-40:]])
        raise RuntimeError(f"{Path(command[0]).name} {command[1]} ended with {done.returncode}:\n{tail}")
    return Finished(seconds=seconds, events=parse_events(done.stdout))


def run_opponent(script: str, settings: Mapping[str, Any], folder: Path) -> Finished:
    """Run one of the scripts in opponents/, which takes its settings as a JSON file."""
    path = folder.with_suffix(".json")
    path.write_text(json.dumps(settings), encoding="utf-8")
    return run([opponent_python(), str(SCRIPTS / script), str(path)], folder)


def parse_events(printed: str) -> list[dict[str, Any]]:
    """The events among the lines that a command printed; its libraries print on the same stream."""
    lines = [line.strip() for line in printed.splitlines()]
    return [json.loads(line) for line in lines if line.startswith('{"event"')]


def _list(text: str) -> list[str]:
    """The parts between commas, each once."""
    return list(dict.fromkeys(part.strip() for part in text.split(",") if part.strip()))


def _last_line(text: str) -> str:
    return next(iter(reversed(text.strip().splitlines())), "no reason given")
