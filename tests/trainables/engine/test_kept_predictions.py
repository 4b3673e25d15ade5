"""A completed trial brings what it predicts: exactly what it was scored by, of every split, and only where asked."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.factories import brief_config
from tests.trainables.engine.test_engine import comparable
from tests.trainables.training.test_extractive_qa import write_questions
from trainables import metrics, tasks
from trainables.config import TrialConfig
from trainables.engine.engine import Engine
from trainables.engine.inbox import Inbox
from trainables.metrics import METRICS
from trainables.outcome import OutcomeStatus, TrialOutcome
from trainables.predictions import Predictions, row_hash
from trainables.training.running_trial import Job

MakeConfig = Callable[..., TrialConfig]


def recomputed(found: Predictions, metric: str, num_labels: int) -> float:
    values: Any = list(found.values) if isinstance(found.values, tuple) else found.values
    return metrics.get(metric).score(values, found.rows.labels, num_labels)


def write_classes(folder: Path, metric: str, num_classes: int) -> Path:
    """Rows of one word a class, with another word, in splits of which validation and test have a further half."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    for split in ("train", "validation", "test", "validation_further", "test_further"):
        rows = range(64 if split == "train" else 24)
        lines = [{"text_a": f"w{row % num_classes} w{rng.integers(20)}", "label": row % num_classes} for row in rows]
        (folder / f"{split}.jsonl").write_text("\n".join(map(json.dumps, lines)), encoding="utf-8")
    declared = {"metric": metric, "num_labels": num_classes}
    (folder / "task.json").write_text(json.dumps(declared), encoding="utf-8")
    return folder


def run_pack(engine: Engine, *configs: TrialConfig) -> list[TrialOutcome]:
    outcomes: dict[int, TrialOutcome] = {}
    inbox = Inbox()
    for index, config in enumerate(configs):
        done: Any = lambda outcome, index=index: outcomes.update({index: outcome})  # noqa: E731
        inbox.put(Job(config=config, done=done, keep_predictions=True))
    engine.work(inbox)
    return [outcomes[index] for index in range(len(configs))]


@pytest.mark.parametrize("num_classes", [2, 3, 12])
@pytest.mark.parametrize("metric", sorted(name for name, each in METRICS.items() if each.kind == "classification"))
@pytest.mark.thinned(6)
def test_every_metric_of_classes_is_the_recorded_score_again(
    metric: str, num_classes: int, engine: Engine, tiny_bert: Path, tmp_path: Path
) -> None:
    task = write_classes(tmp_path / "words", metric, num_classes)
    config = brief_config(task=str(task), backbone=str(tiny_bert), max_length=16, precision="fp32", num_epochs=1)
    outcome = engine.run(config, keep_predictions=True)
    assert outcome.status is OutcomeStatus.COMPLETED
    assert set(outcome.predictions) == {"validation", "test", "validation_further", "test_further"}
    scores = {
        "validation": outcome.validation_score,
        "test": outcome.test_score,
        "validation_further": outcome.validation[f"further_{metric}"],
        "test_further": outcome.test[f"further_{metric}"],
    }
    for split, found in outcome.predictions.items():
        assert recomputed(found, metric, num_classes) == scores[split]
        assert found.scores is not None
        assert found.scores.shape == (24, num_classes if num_classes < 12 else 5)
        rows = tasks.load(str(task)).splits[split]
        assert [f"{number:016x}" for number in found.rows.hashes] == [row_hash(t) for t in rows["text_a"].to_pylist()]
        assert list(found.rows.labels) == rows["label"].to_pylist()


@pytest.mark.parametrize("metric", sorted(name for name, each in METRICS.items() if each.kind == "regression"))
def test_every_metric_of_numbers_is_the_recorded_score_again(metric: str, engine: Engine, config: MakeConfig) -> None:
    trial = config(kind="regression")
    folder = Path(trial.task)
    declared = {"kind": "regression", "metric": metric}
    (folder / "task.json").write_text(json.dumps(declared), encoding="utf-8")
    outcome = engine.run(trial, keep_predictions=True)
    assert recomputed(outcome.predictions["test"], metric, 1) == outcome.test_score
    assert recomputed(outcome.predictions["validation"], metric, 1) == outcome.validation_score


@pytest.mark.parametrize("metric", sorted(name for name, each in METRICS.items() if each.kind == "extractive_qa"))
def test_every_metric_of_answers_is_the_recorded_score_again(
    metric: str, engine: Engine, tiny_bert: Path, tmp_path: Path
) -> None:
    folder = write_questions(tmp_path / "questions", rows=64, words=10)
    declared = {"kind": "extractive_qa", "metric": metric}
    (folder / "task.json").write_text(json.dumps(declared), encoding="utf-8")
    config = brief_config(task=str(folder), backbone=str(tiny_bert), max_length=12, precision="fp32", num_epochs=1)
    outcome = engine.run(config, keep_predictions=True)
    assert outcome.status is OutcomeStatus.COMPLETED, outcome.error
    for split, score in (("test", outcome.test_score), ("validation", outcome.validation_score)):
        found = outcome.predictions[split]
        assert len(found.values) == len(found.rows) == 32  # of each question, of whose windows there are more
        assert found.scores is None
        assert recomputed(found, metric, 2) == score


def test_keeping_them_changes_nothing_and_without_being_asked_there_are_none(
    engine: Engine, config: MakeConfig
) -> None:
    with_them, without = engine.run(config(), keep_predictions=True), engine.run(config())
    assert with_them.predictions
    assert not without.predictions
    assert comparable(with_them) == comparable(without)
    assert "predictions" not in repr(with_them)


def test_trials_of_one_pack_bring_each_its_own(engine: Engine, config: MakeConfig) -> None:
    configs = [config(seed=seed, num_epochs=1 + seed) for seed in range(3)]
    together = run_pack(engine, *configs)
    assert any(outcome.pack_size and outcome.pack_size > 1 for outcome in together)
    for trial, outcome in zip(configs, together, strict=True):
        alone = engine.run(trial, keep_predictions=True)
        for split, score in (("validation", outcome.validation_score), ("test", outcome.test_score)):
            here, there = outcome.predictions[split], alone.predictions[split]
            assert recomputed(here, "accuracy", 2) == score
            np.testing.assert_allclose(here.scores, there.scores, atol=1e-2)  # type: ignore[arg-type]
    assert together[0].predictions["test"].rows is together[1].predictions["test"].rows


def test_a_trial_that_does_not_complete_brings_none(engine: Engine, config: MakeConfig) -> None:
    pruned = engine.run(config(), report=lambda epoch: False, keep_predictions=True)
    cancelled = engine.run(config(), cancelled=lambda: True, keep_predictions=True)
    failed = engine.run(config(learning_rate=1e30), keep_predictions=True)
    for outcome, status in ((pruned, "pruned"), (cancelled, "cancelled"), (failed, "failed")):
        assert (outcome.status, dict(outcome.predictions)) == (status, {})
    at_its_end = engine.run(
        dataclasses.replace(config(), num_epochs=1), report=lambda epoch: False, keep_predictions=True
    )
    assert at_its_end.status is OutcomeStatus.COMPLETED
    assert at_its_end.predictions
