"""Extractive question answering from its files to the answers of a saved adapter."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

import trainables
from trainables import metrics, tasks
from trainables.backbones.loading import Backbone
from trainables.config import Scalar, TrialConfig
from trainables.data.tokenized import encode
from trainables.engine.engine import Engine
from trainables.methods import kind_faults, method_names
from trainables.nn.encoder import Encoder
from trainables.outcome import OutcomeStatus
from trainables.training.evaluation import evaluate, predict, to_device
from trainables.training.loss import NOWHERE, example_losses
from trainables.training.model import build_model

SmallOptions = Callable[[str, Encoder], dict[str, Scalar]]


def write_questions(folder: Path, *, rows: int, words: int) -> Path:
    """Questions whose answer is the word after "good" in their context."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    for split, count in (("train", rows), ("validation", 32), ("test", 32)):
        paragraphs = []
        for row in range(count):
            context = [f"w{number}" for number in rng.choice(20, words, replace=False)]
            context[place := int(rng.integers(0, words - 1))] = "good"
            start = len(" ".join(context[: place + 1])) + 1
            answer = {"text": context[place + 1], "answer_start": start}
            question = {"id": f"{split}{row}", "question": "good", "answers": [answer]}
            paragraphs.append({"context": " ".join(context), "qas": [question]})
        (folder / f"{split}.json").write_text(json.dumps({"data": [{"paragraphs": paragraphs}]}), encoding="utf-8")
    return folder


@pytest.fixture
def trial(tmp_path: Path, tiny_bert: Path) -> Callable[..., TrialConfig]:
    """Makes a trial over questions whose contexts are longer than its windows."""

    def make(rows: int = 48, **values: Any) -> TrialConfig:
        folder = tmp_path / f"questions-{rows}"
        if not folder.exists():
            write_questions(folder, rows=rows, words=10)
        fixed: dict[str, Any] = {
            "task": str(folder),
            "backbone": str(tiny_bert),
            "method": "adapter",
            "method_options": {"adapter_size": 4},
            "learning_rate": 1e-2,
            "num_epochs": 1,
            "batch_size": 16,
            "max_length": 12,
            "precision": "fp32",
        }
        return TrialConfig(**(fixed | values))

    return make


@pytest.mark.thorough
def test_it_is_learned(trial: Callable[..., TrialConfig], engine: Engine) -> None:
    outcome = engine.run(trial(rows=192, method="full_finetuning", method_options={}, num_epochs=10, dropout=0.0))
    assert outcome.status is OutcomeStatus.COMPLETED, outcome.error
    assert outcome.metric == "squad_f1"
    first, last = outcome.epochs[0], outcome.epochs[-1]
    assert first.validation_score < 0.6
    assert outcome.test_score == outcome.test["squad_f1"] > 0.9
    assert outcome.test["squad_em"] > 0.9
    assert last.validation["loss"] < 0.3 * first.validation["loss"]
    assert set(last.validation) == {"squad_f1", "squad_em", "loss"}


@pytest.mark.parametrize("method", method_names())
@pytest.mark.thinned(4)
def test_a_saved_trial_of_any_method_for_it_answers_as_it_did(
    method: str,
    trial: Callable[..., TrialConfig],
    engine: Engine,
    backbone: Backbone,
    small_options: SmallOptions,
    tmp_path: Path,
) -> None:
    config = trial(method=method, method_options=small_options(method, backbone.encoder))
    task = tasks.load(config.task)
    outcome = engine.run(config, save_to=tmp_path / "saved")
    if faults := kind_faults(method, task.info):
        assert outcome.status is OutcomeStatus.FAILED
        assert faults[0] in str(outcome.error)
        return
    assert outcome.status is OutcomeStatus.COMPLETED, outcome.error
    rows = task.splits["test"].to_pylist()
    predictor = trainables.load(tmp_path / "saved")
    answers = predictor.predict([row["text_a"] for row in rows], [row["text_b"] for row in rows])
    assert all(answer and str(answer) in row["text_b"] for answer, row in zip(answers, rows, strict=True))
    right = [[answer["text"] for answer in row["answers"]] for row in rows]
    assert metrics.get("squad_f1").score(answers, right) == pytest.approx(outcome.test["squad_f1"])


def test_a_packed_trial_is_the_trial_it_would_be_alone(trial: Callable[..., TrialConfig], engine: Engine) -> None:
    configs = [trial(seed=seed, learning_rate=rate) for seed, rate in ((0, 1e-2), (1, 3e-3))]
    packed = engine.run_all(configs)
    assert all(outcome.pack_size and outcome.pack_size > 1 for outcome in packed)
    for config, together in zip(configs, packed, strict=True):
        alone = engine.run(config)
        assert alone.pack_size == 1
        for one, other in zip(together.epochs, alone.epochs, strict=True):
            assert one.train_loss == pytest.approx(other.train_loss, abs=1e-5)
            assert one.validation["loss"] == pytest.approx(other.validation["loss"], abs=1e-5)
        assert together.validation_score == pytest.approx(alone.validation_score, abs=1e-5)


def test_the_loss_is_the_mean_of_two_cross_entropies_and_padding_is_no_place() -> None:
    generator = torch.Generator().manual_seed(0)
    outputs = torch.randn(3, 7, 2, generator=generator)
    labels = torch.tensor([[1, 2], [0, 0], [4, 4]])
    losses = example_losses(outputs, labels)
    for row, (start, end) in enumerate(labels.tolist()):
        logs = F.log_softmax(outputs[row], dim=0)
        assert losses[row].item() == pytest.approx(-(logs[start, 0] + logs[end, 1]).item() / 2, rel=1e-6)
    padded = torch.cat([outputs, torch.full((3, 4, 2), NOWHERE)], dim=1)
    assert torch.equal(example_losses(padded, labels), losses)


def test_padding_decides_nothing(tmp_path: Path, trial: Callable[..., TrialConfig], backbone: Backbone) -> None:
    folder = write_questions(tmp_path / "short", rows=8, words=3)
    split = encode(tasks.load(str(folder)).splits["test"], backbone.tokenizer, 30)
    model = build_model(backbone.encoder, [trial()], 2, kind="extractive_qa")
    torch.nn.init.normal_(model.head.weight, generator=torch.Generator().manual_seed(0))
    outputs, labels = predict(model, split)
    assert outputs.shape == (32, split.lengths.max(), 2)
    assert labels.tolist() == split.labels.tolist()
    rows = np.arange(32)
    for row in rows:
        _, pieces, _ = to_device(split, rows[row : row + 1], 1, torch.device("cpu"))
        with torch.no_grad():
            (alone,) = model(pieces).numpy()
        np.testing.assert_allclose(outputs[row, : len(alone)], alone, rtol=1e-5, atol=1e-5)
        assert (outputs[row, len(alone) :] <= NOWHERE).all()


def test_the_evaluation_loss_is_the_mean_over_windows(
    tmp_path: Path, trial: Callable[..., TrialConfig], backbone: Backbone
) -> None:
    split = encode(tasks.load(trial().task).splits["test"], backbone.tokenizer, 12)
    model = build_model(backbone.encoder, [trial()], 2, kind="extractive_qa")
    scores = evaluate(model, split, metrics.get("squad_f1"))
    losses = [
        example_losses(model(pieces), labels).item()
        for _, pieces, labels in (
            to_device(split, np.array([row]), 1, torch.device("cpu")) for row in range(len(split))
        )
    ]
    assert len(losses) == 64
    assert scores["loss"] == pytest.approx(np.mean(losses), rel=1e-5)
