"""What the tests of saved adapters share."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from tests.saving import Saved, save_random
from trainables.config import Scalar
from trainables.metrics import TaskKind


@pytest.fixture
def saved(tmp_path: Path, checkpoint: Callable[[str], Path]) -> Saved:
    """Saves an adapter whose weights are all random, over a random checkpoint of a family."""

    def make(
        family: str,
        method: str,
        options: Mapping[str, Scalar],
        *,
        kind: TaskKind = "classification",
        pair: bool = False,
    ) -> Path:
        save_random(tmp_path / "saved", checkpoint(family), method, options, kind=kind, pair=pair)
        return tmp_path / "saved"

    return make
