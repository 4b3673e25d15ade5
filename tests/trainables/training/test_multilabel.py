"""Several labels a text, from files to the answers of a saved adapter."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow.compute as pc
import pytest
import torch
import torch.nn.functional as F
from sklearn.metrics import f1_score

import trainables
from tests.factories import brief_config
from tests.fixtures import SmallOptions
from trainables import metrics, tasks
from trainables.backbones.loading import Backbone
from trainables.config import TrialConfig
from trainables.engine.engine import Engine
from trainables.methods import method_names
from trainables.outcome import OutcomeStatus
from trainables.predictions import predictions_table
from trainables.training.device_data import on_device
from trainables.training.evaluation import predict_stacked, predict_there
from trainables.training.loss import example_losses
from trainables.training.model import build_model

NAMES = ("calm", "glad", "sad")


def write_moods(folder: Path, rows: int = 64) -> Path:
    """Texts that say "good", "bad", both or neither: glad, sad, both or nothing; and no text is calm."""
    folder.mkdir(exist_ok=True)
    rng = np.random.default_rng(0)
    for split, count in (("train", rows), ("validation", 32), ("test", 32)):
        lines = []
        for row in range(count):
            said = [word for bit, word in enumerate(("good", "bad")) if row >> bit & 1]
            words = rng.permutation([*said, *(f"w{number}" for number in rng.integers(0, 8, size=3))])
            labels = [{"good": "glad", "bad": "sad"}[word] for word in said]
            lines.append(json.dumps({"text_a": " ".join(map(str, words)), "label": labels}))
        (folder / f"{split}.jsonl").write_text("\n".join(lines), encoding="utf-8")
    (folder / "task.json").write_text(json.dumps({"label_names": NAMES}), encoding="utf-8")
    return folder


@pytest.fixture
def moods(tmp_path: Path) -> str:
    return str(write_moods(tmp_path / "moods"))


def trial(task: str, backbone: Path, method: str = "adapter", **values: object) -> TrialConfig:
    return brief_config(method, task=task, backbone=str(backbone), max_length=16, precision="fp32", **values)


@pytest.mark.thorough
def test_it_is_learned_and_scored_by_every_metric_of_its_kind(tmp_path: Path, tiny_bert: Path, engine: Engine) -> None:
    task = str(write_moods(tmp_path / "many", 192))
    outcome = engine.run(
        trial(task, tiny_bert, "full_finetuning", learning_rate=3e-3, num_epochs=16, dropout=0.0), keep_predictions=True
    )
    assert outcome.status is OutcomeStatus.COMPLETED, outcome.error
    assert outcome.metric == "micro_f1"
    assert outcome.test_score == outcome.test["micro_f1"] > 0.9
    assert outcome.epochs[-1].validation["loss"] < 0.8 * outcome.epochs[0].validation["loss"]
    rows = predictions_table(outcome.predictions).filter(pc.field("split") == "test").to_pylist()
    has, found = (
        np.array([[label in row[name] for label in range(3)] for row in rows]) for name in ("label", "prediction")
    )
    assert [row["label"] for row in rows[:4]] == [[], [1], [2], [1, 2]]
    for name, average in (("micro_f1", "micro"), ("multilabel_macro_f1", "macro")):
        assert outcome.test[name] == pytest.approx(f1_score(has, found, average=average, zero_division=0))
    assert outcome.test["subset_accuracy"] == pytest.approx((has == found).all(axis=1).mean())
    assert all(
        (np.exp(row["scores"][label]) > 0.5) == (label in row["prediction"]) for row in rows for label in range(3)
    )


@pytest.mark.parametrize("method", method_names())
@pytest.mark.thinned(4)
def test_a_saved_trial_of_any_method_answers_as_it_did(
    method: str,
    moods: str,
    tiny_bert: Path,
    engine: Engine,
    backbone: Backbone,
    small_options: SmallOptions,
    tmp_path: Path,
) -> None:
    config = trial(moods, tiny_bert, method, method_options=small_options(method, backbone.encoder))
    outcome = engine.run(config, save_to=tmp_path / "saved")
    assert outcome.status is OutcomeStatus.COMPLETED, outcome.error
    rows = tasks.load(moods).splits["test"].to_pylist()
    answers = trainables.load(tmp_path / "saved").predict([row["text_a"] for row in rows])
    for answer in answers:
        assert [share for _, share in answer] == sorted((share for _, share in answer), reverse=True)
        assert all(0.5 < share <= 1 for _, share in answer)
    found = [[name in dict(answer) for name in NAMES] for answer in answers]
    labels = [row["label"] for row in rows]
    assert metrics.get("micro_f1").score(found, labels) == pytest.approx(outcome.test["micro_f1"])


def test_a_packed_trial_is_the_trial_it_would_be_alone(moods: str, tiny_bert: Path, engine: Engine) -> None:
    configs = [
        trial(moods, tiny_bert, seed=seed, learning_rate=rate) for seed, rate in ((0, 1e-2), (1, 3e-3), (2, 1e-3))
    ]
    packed = engine.run_all(configs)
    for config, together in zip(configs, packed, strict=True):
        alone = engine.run(config)
        assert (alone.pack_size, together.pack_size) == (1, 3)
        for one, other in zip(together.epochs, alone.epochs, strict=True):
            assert one.train_loss == pytest.approx(other.train_loss, abs=1e-5)
            assert one.validation["loss"] == pytest.approx(other.validation["loss"], abs=1e-5)
        assert together.test == pytest.approx(alone.test, abs=1e-5)


def test_the_loss_is_the_mean_over_labels_of_binary_cross_entropies() -> None:
    generator = torch.Generator().manual_seed(0)
    outputs, labels = torch.randn(5, 3, generator=generator), torch.rand(5, 3, generator=generator) > 0.5
    expected = F.binary_cross_entropy(outputs.sigmoid(), labels.float(), reduction="none").mean(dim=1)
    torch.testing.assert_close(example_losses(outputs, labels), expected)
    torch.testing.assert_close(example_losses(outputs, labels.float()), expected)


def test_batches_that_the_device_gathers_have_the_labels_too(moods: str, engine: Engine, backbone: Backbone) -> None:
    task = tasks.load(moods)
    config = trial(moods, Path("any"))
    split = engine._tokenized(task, backbone, config)["validation"]
    assert split.labels.shape == (32, 3)
    assert split.labels.tolist() == task.splits["validation"]["label"].to_pylist()
    rows = torch.tensor([3, 0, 1, 2])
    _, labels = on_device(split, torch.device("cpu")).batch(rows, 2, 32, int(split.lengths.max()))
    assert labels.tolist() == split.labels[rows].astype(float).tolist()
    model = build_model(backbone.encoder, [config], 3, kind="multilabel")
    np.testing.assert_allclose(predict_there(model, split), predict_stacked(model, split), atol=1e-6)
