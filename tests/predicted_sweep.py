"""A small store written through its own doors, as a sweep leaves it: records with what every trial predicted."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from orchestrator.record import TrialRecord, TrialStatus
from orchestrator.spec.spec import MethodSpec, SweepSpec
from orchestrator.store import Store, TrialPredictions
from tests.factories import STARTED_AT, plan_rows
from trainables import metrics
from trainables.predictions import Predictions, SplitRows, predictions_from

_TOTAL = 22_713_216


@dataclass(frozen=True, kw_only=True)
class MadeTask:
    """A task whose rows are as hard as they are, whatever predicts them."""

    name: str
    metric: str = "accuracy"
    classes: int = 2
    num_rows: int = 150
    has_test: bool = True
    keeps: bool = True  # what is predicted

    def rows(self, split: str) -> tuple[SplitRows, np.ndarray]:
        """With how hard each is, as a number around 0."""
        rng = np.random.default_rng(_number(self.name, split))
        count = self.num_rows - 30 * (split == "validation")
        kind = metrics.get(self.metric).kind
        is_number = kind == "regression"
        labels = np.round(5 * rng.random(count), 1) if is_number else rng.integers(self.classes, size=count)
        if kind == "multilabel":  # with rows that have none
            labels = rng.random((count, self.classes)) < 0.3
        hashes = rng.integers(2**63, size=count, dtype=np.uint64)
        return SplitRows(id=f"{self.name}-{split}", hashes=hashes, labels=labels), rng.normal(size=count)


TASKS = (
    MadeTask(name="topics", classes=4),
    MadeTask(name="many", classes=14),
    MadeTask(name="spam", metric="f1"),
    MadeTask(name="grammar", metric="matthews_correlation"),
    MadeTask(name="alike", metric="pearson_and_spearman"),
    MadeTask(name="untested", has_test=False),
    MadeTask(name="old", keeps=False),
)
# (method, options, learning rate, parameters without the head, how much the method knows)
SETTINGS: tuple[tuple[str, dict[str, Any], float, int, float], ...] = (
    ("full_finetuning", {}, 3e-5, _TOTAL, 1.75),
    ("full_finetuning", {}, 1e-4, _TOTAL, 1.8),
    ("adapter", {"adapter_size": 8}, 3e-4, 80_000, 1.65),
    ("adapter", {"adapter_size": 8}, 1e-3, 80_000, 1.7),
    ("adapter", {"adapter_size": 64}, 3e-4, 600_000, 1.8),
    ("adapter", {"adapter_size": 64}, 1e-3, 600_000, 1.75),
    ("layernorm", {}, 1e-3, 10_000, 1.3),
)


def write_sweep(folder: Path, tasks: Sequence[MadeTask] = TASKS, seeds: Sequence[int] = (0, 1, 2)) -> Store:
    """Every task by every setting by every seed; one trial of adapter failed. Scores are those of the predictions."""
    trials = list(_trials(tasks, seeds))
    store = Store(folder)
    spec = SweepSpec(name="made", tasks=("toy/sentiment",), methods=(MethodSpec(method="adapter"),))
    with store.lock():
        store.begin(spec.to_json(), plan_rows(*(record.trial_id for record, _ in trials), sweep="made"))
        store.keep_predictions(
            {
                record.trial_id: TrialPredictions(started_at=STARTED_AT, splits=predicted)
                for record, predicted in trials
                if predicted
            }
        )
        store.append([record for record, _ in trials])
    return store


def _trials(tasks: Sequence[MadeTask], seeds: Sequence[int]) -> Iterator[tuple[TrialRecord, dict[str, Predictions]]]:
    for task in tasks:
        for method, options, rate, size, knows in SETTINGS:
            for seed in seeds:
                fails = (task.name, options.get("adapter_size"), rate, seed) == ("topics", 8, 3e-4, seeds[0])
                yield _trial(task, (method, options, rate, size, knows), seed, fails=fails)


def _trial(task: MadeTask, setting: tuple[Any, ...], seed: int, *, fails: bool) -> tuple[TrialRecord, Any]:
    method, options, rate, size, knows = setting
    config_id = hashlib.sha256(repr((task.name, method, options, rate)).encode()).hexdigest()[:16]
    predicted = {
        split: _predict(task, split, knows + 0.1 * np.random.default_rng(_number(config_id, seed)).normal(), seed)
        for split in ("validation", *(["test"] if task.has_test else []))
    }
    scores = {
        split: metrics.get(task.metric).score(found.values, found.rows.labels, task.classes)
        for split, found in predicted.items()
    }
    record = TrialRecord(
        sweep="made",
        trial_id=f"{config_id}-{seed}",
        config_id=config_id,
        task=task.name,
        backbone="minilm",
        method=method,
        seed=seed,
        status=TrialStatus.FAILED if fails else TrialStatus.COMPLETED,
        hyperparameters={"learning_rate": rate, "num_epochs": 3, **options},
        trained_params=None if fails else size + 385 * task.classes,
        trained_params_without_head=None if fails else size,
        total_params=None if fails else _TOTAL + 385 * task.classes,
        metric=None if fails else task.metric,
        validation_score=None if fails else scores["validation"],
        test_score=None if fails else scores.get("test"),
        duration_s=10.0 + size / 1e6 + seed,
        pack_size=2.0,
        started_at=STARTED_AT,
        error="RuntimeError" if fails else None,
    )
    return record, predicted if task.keeps and not fails else {}


def _predict(task: MadeTask, split: str, knows: float, seed: int) -> Predictions:
    rows, hardness = task.rows(split)
    labels = np.asarray(rows.labels)
    rng = np.random.default_rng(_number(task.name, split, knows, seed))
    if metrics.get(task.metric).kind == "regression":
        values = (labels + rng.normal(0, 1.5, len(labels)) / knows + hardness / 2).astype(np.float32)
        return predictions_from(values[:, None], values, rows, "regression")
    outputs = rng.normal(0, 0.5, (len(labels), task.classes))
    if metrics.get(task.metric).kind == "multilabel":
        outputs = (outputs + np.where(labels, 1, -1) * (knows - 1.5 * hardness)[:, None]).astype(np.float32)
        return predictions_from(outputs, outputs > 0, rows, "multilabel")
    outputs[np.arange(len(labels)), labels] += knows - 1.5 * hardness
    outputs = outputs.astype(np.float32)
    return predictions_from(outputs, outputs.argmax(axis=1), rows, "classification")


def _number(*parts: object) -> int:
    return int(hashlib.sha256(repr(parts).encode()).hexdigest()[:8], 16)
