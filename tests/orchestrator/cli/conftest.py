"""A small sweep in a folder of its own, and the command line as a user calls it."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.compiled import cache_with_kernels

SweepValues = dict[str, Any]
WriteSweep = Callable[..., str]


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder of a user without any settings."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setenv("ADAPTUNE_CACHE", str(cache_with_kernels(tmp_path / "cache")))
    return tmp_path


@pytest.fixture
def values(tiny_bert: Path, task_folder: Callable[..., Path]) -> SweepValues:
    """Two methods, two sizes, two seeds: six trials of a second each, two at once: each has a process to start."""
    return {
        "name": "small",
        "backbone": str(tiny_bert),
        "tasks": [str(task_folder())],
        "seeds": [0, 1],
        "space": {"num_epochs": 2, "learning_rate": 1e-3, "batch_size": 16},
        "methods": [{"adapter": {"adapter_size": {"grid": [1, 4]}}}, "full_finetuning"],
        "search": {"algorithm": "grid", "max_concurrent_trials": 2},
    }


@pytest.fixture
def write_sweep(home: Path, values: SweepValues) -> WriteSweep:
    """Writes the sweep, with changes, and gives its path. JSON is YAML too."""

    def write(file: str = "sweep.yaml", /, **changes: Any) -> str:
        (home / file).write_text(json.dumps({**values, **changes}), encoding="utf-8")
        return file

    return write


def last_json(output: str) -> Mapping[str, Any]:
    """The answer of a command run with --json: the only line on standard output."""
    lines = output.strip().splitlines()
    assert len(lines) == 1, output
    answer: Mapping[str, Any] = json.loads(lines[0])
    return answer
