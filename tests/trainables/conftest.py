"""What the engine's tests share: an engine without a cache of its own, trials of a tiny BERT, and a bucket."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.factories import brief_config
from tests.object_store import ObjectStore, serving_with_keys
from trainables.config import TrialConfig
from trainables.engine.engine import Engine

MakeTask = Callable[..., Path]
MakeConfig = Callable[..., TrialConfig]


@pytest.fixture(scope="module")
def bucket() -> Iterator[ObjectStore]:
    with serving_with_keys() as store:
        yield store


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
