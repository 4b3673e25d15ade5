"""Predictions of made-up trials, for those who keep and read them."""

from __future__ import annotations

from typing import Any

import numpy as np

from orchestrator.store import TrialPredictions
from tests.factories import STARTED_AT
from trainables.metrics import TaskKind
from trainables.predictions import Predictions, SplitRows, predictions_from


def rows_named(name: str = "r", count: int = 4, kind: TaskKind = "classification") -> SplitRows:
    """Rows of which every second one has the label 1; of questions, the right answers are "a" and "b"."""
    number = sum(map(ord, name))
    labels: Any = np.arange(count) % 2
    if kind == "extractive_qa":
        labels = tuple(("a", "b") for _ in range(count))
    elif kind == "multilabel":  # none, the first, the second, both
        labels = np.arange(count)[:, None] >> np.arange(2) & 1 == 1
    return SplitRows(id=name, hashes=np.arange(count, dtype=np.uint64) + np.uint64(number), labels=labels)


def predicted(
    seed: int = 0, *, rows: SplitRows | None = None, kind: TaskKind = "classification", classes: int = 2
) -> Predictions:
    """Of each row something that the seed decides."""
    rows = rows or rows_named(kind=kind)
    outputs = np.random.default_rng(seed).standard_normal((len(rows), classes)).astype(np.float32)
    picked = {
        "classification": outputs.argmax(axis=1),
        "regression": outputs[:, 0],
        "extractive_qa": [f"answer {seed} {row}" for row in range(len(rows))],
        "multilabel": outputs > 0,
    }
    return predictions_from(outputs, picked[kind], rows, kind)


def of_trial(seed: int = 0, *, started_at: str = STARTED_AT, **splits: Predictions) -> TrialPredictions:
    """What a trial predicted of validation and test, or of the splits that are given."""
    given = splits or {
        "validation": predicted(seed, rows=rows_named("v", 3)),
        "test": predicted(seed + 100, rows=rows_named("t", 4)),
    }
    return TrialPredictions(started_at=started_at, splits=given)
