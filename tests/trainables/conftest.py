"""What the engine's tests share: an engine without a cache of its own, and trials of a tiny BERT."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.factories import brief_config
from trainables.config import TrialConfig
from trainables.engine.engine import Engine

MakeTask = Callable[..., Path]
MakeConfig = Callable[..., TrialConfig]


@pytest.fixture
def config(tiny_bert: Path, task_folder: MakeTask) -> MakeConfig:
    """Makes a trial of 16 steps over a small task folder, with other values as given."""
    folders: dict[str, Path] = {}

    def make(kind: str = "classification", **values: Any) -> TrialConfig:
        if kind not in folders:
            folders[kind] = task_folder(kind, rows=128, kind=kind)
        fixed: dict[str, Any] = {
            "task": str(folders[kind]),
            "backbone": str(tiny_bert),
            "max_length": 16,
            "precision": "fp32",
        }
        return brief_config(**(fixed | values))

    return make


@pytest.fixture
def engine(cache_dir: Path) -> Engine:
    """An engine on the CPU."""
    return Engine(device="cpu", cache_dir=cache_dir)
