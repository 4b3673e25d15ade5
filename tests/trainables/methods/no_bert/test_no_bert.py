"""The baseline without an encoder: its options, its static vectors, and what it can and cannot learn."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import trainables
from tests.factories import trial_config
from tests.pieces import laid_out
from trainables.config import Scalar, TrialConfig
from trainables.engine.engine import Engine
from trainables.estimate.preview import meta_encoder
from trainables.faults import FaultsError
from trainables.methods import identity_of, no_bert, parse_options
from trainables.methods.no_bert.words import hash_word
from trainables.nn.encoder_shape import EncoderShape
from trainables.outcome import OutcomeStatus, TrialOutcome
from trainables.training.model import build_model, count_parameters

SHAPE = EncoderShape(
    model_type="bert",
    vocab_size=8,
    hidden_size=4,
    num_layers=1,
    num_heads=1,
    intermediate_size=4,
    max_positions=8,
    type_vocab_size=2,
    embedding_size=4,
)
SMALL: dict[str, Scalar] = {"embedding_dim": 8, "buckets": 256, "wide_buckets": 256, "wide_size": 2, "hidden_size": 8}
SMALL |= {"conv_filters": 4, "hidden_dropout": 0.0, "conv_dropout": 0.0, "conv_embedding_dropout": 0.0}
Train = Callable[..., TrialOutcome]


def build(**options: Scalar) -> tuple[Any, no_bert.Options]:
    """A model on the meta device, which has sizes and no values."""
    config = trial_config("no_bert", method_options={**SMALL, **options})
    with torch.device("meta"):
        return build_model(meta_encoder(SHAPE), [config], 3), parse_options("no_bert", config.method_options)


@pytest.mark.parametrize("convolution", [False, True])
@pytest.mark.parametrize("norm", ["none", "batch", "layer"])
@pytest.mark.parametrize("layers", [0, 1, 3])
def test_the_closed_formula_counts_every_shape_of_network(convolution: bool, norm: str, layers: int) -> None:
    for more in (
        {"max_ngram": 2},
        {"max_ngram": 3, "conv_batch_norm": True},
        {"tune_embeddings": False, "wide_size": 0},
    ):
        options = {"convolution": convolution, "hidden_norm": norm, "hidden_layers": layers, **more}
        model, parsed = build(**options)
        assert count_parameters(model).trained_without_head == no_bert.trained_params(SHAPE, parsed), options


def test_all_faults_of_its_options_come_at_once(tmp_path: Path) -> None:
    faulty: dict[str, Scalar] = {
        "embedding_dim": 0,
        "longest_piece": 2,
        "hidden_norm": "bacth",
        "conv_activation": "gelu",
        "hidden_dropout": 1.0,
        "vectors": str(tmp_path / "none.txt"),
    }
    with pytest.raises(FaultsError) as refusal:
        parse_options("no_bert", faulty, SHAPE)
    said = "\n".join(refusal.value.faults)
    assert len(refusal.value.faults) == len(faulty)
    assert "no_bert.embedding_dim: must be in [1, 1024], but got 0" in said
    assert "no_bert.longest_piece: must be 0 or at least 3" in said
    assert "unknown hidden norm 'bacth'; did you mean 'batch'?" in said
    assert "no_bert.vectors: must be a readable file" in said


@pytest.fixture
def vectors(tmp_path: Path) -> Path:
    path = tmp_path / "vectors.txt"
    path.write_text("good 1 0 0\nbad 0 1 0\n", encoding="utf-8")
    return path


def test_static_vectors_decide_the_width_and_a_trials_identity_by_their_content(vectors: Path, tmp_path: Path) -> None:
    with pytest.raises(FaultsError, match="embedding_dim: must be 3, as the vectors are, but got 64"):
        parse_options("no_bert", {"vectors": str(vectors)}, SHAPE)
    copy = tmp_path / "copy.txt"
    copy.write_bytes(vectors.read_bytes())
    identities = [identity_of("no_bert", {"vectors": str(path), "embedding_dim": 3}) for path in (vectors, copy)]
    assert identities[0] == identities[1]
    copy.write_text("good 1 0 1\n", encoding="utf-8")
    assert identity_of("no_bert", {"vectors": str(copy), "embedding_dim": 3}) != identities[0]


@pytest.mark.parametrize("tune", [False, True])
def test_what_is_learned_begins_at_the_static_vectors(vectors: Path, tune: bool) -> None:
    options: dict[str, Scalar] = {"vectors": str(vectors), "embedding_dim": 3, "tune_embeddings": tune}
    options |= {"convolution": False, "hidden_layers": 0, "wide_size": 0}
    config = trial_config("no_bert", method_options=options)
    model = build_model(meta_encoder(SHAPE).to_empty(device="cpu"), [config], 2)
    ids = torch.tensor([[hash_word("good"), hash_word("bad"), hash_word("new")]])
    features = model.encoder(laid_out(ids))
    torch.testing.assert_close(features, torch.tensor([[1.0, 1.0, 0.0]]) / 3**0.5)
    features.sum().backward()
    has_moved = [name for name, p in model.named_parameters() if p.grad is not None and "encoder" in name]
    assert ("encoder.body.embeddings.table" in has_moved) == tune
    assert "encoder.body.embeddings.static.vectors" not in has_moved


@pytest.fixture
def train(tiny_bert: Path, tmp_path: Path) -> Train:
    """Trains on rows of (text, label) or (text, second text, label), the same rows in all three splits."""

    def run(rows: list[tuple[Any, ...]], save_to: Path | None = None, **options: Scalar) -> TrialOutcome:
        folder = tmp_path / "task"
        folder.mkdir(exist_ok=True)
        names = ("text_a", "label") if len(rows[0]) == 2 else ("text_a", "text_b", "label")
        lines = [json.dumps(dict(zip(names, row, strict=True))) for row in rows]
        for split in ("train", "validation", "test"):
            (folder / f"{split}.jsonl").write_text("\n".join(lines), encoding="utf-8")
        config = TrialConfig(
            task=str(folder),
            backbone=str(tiny_bert),
            method="no_bert",
            method_options={**SMALL, **options},
            learning_rate=2e-2,
            num_epochs=8,
            batch_size=8,
            weight_decay=0.0,
            dropout=0.0,
        )
        outcome = Engine(device="cpu", cache_dir=tmp_path / "cache").run(config, save_to=save_to)
        assert outcome.status is OutcomeStatus.COMPLETED, outcome.error
        return outcome

    return run


ORDER = [("mind over matter", 0), ("matter over mind", 1)] * 24


@pytest.mark.parametrize(
    ("options", "learns"),
    [
        ({"convolution": True, "wide_size": 0}, True),
        ({"convolution": False, "wide_size": 2}, True),
        ({"convolution": False, "wide_size": 0, "hidden_layers": 1}, False),
    ],
    ids=["convolution", "wide tower", "bag of words"],
)
def test_the_order_of_words_is_for_those_that_read_n_grams(
    train: Train, options: Mapping[str, Scalar], learns: bool
) -> None:
    assert train(ORDER, **options).test_score == (1.0 if learns else 0.5)


@pytest.mark.parametrize("convolution", [False, True])
def test_of_a_pair_it_learns_whether_both_texts_say_the_same(train: Train, convolution: bool) -> None:
    words = [f"w{number}" for number in range(8)]
    rows = [(one, other, int(one == other)) for one in words for other in (one, words[(words.index(one) + 1) % 8])] * 3
    assert train(rows, convolution=convolution, wide_size=0).test_score == 1.0


def test_a_saved_one_answers_with_its_own_words_and_needs_no_vocabulary(
    train: Train, tmp_path: Path, vectors: Path
) -> None:
    options: dict[str, Scalar] = {"vectors": str(vectors), "embedding_dim": 3, "hidden_norm": "batch"}
    rows = [(f"a good w{n}", 1) for n in range(12)] + [(f"a bad w{n}", 0) for n in range(12)]
    outcome = train(rows, save_to=tmp_path / "saved", **options)
    vectors.unlink()  # a copy was saved with it
    predictor = trainables.load(tmp_path / "saved")
    answers = predictor.predict([text for text, _ in rows])
    assert np.mean(np.array(answers) == [label for _, label in rows]) == pytest.approx(outcome.test_score)
    assert predictor.predict(["", "good"])[1] == 1


def test_no_backbone_need_be_at_hand(task_folder: Any, cache_dir: Path, tmp_path: Path) -> None:
    """It trains, is saved and answers where the backbone that is named does not exist."""
    trial = TrialConfig(
        task=str(task_folder()), backbone="/no/such/backbone", method="no_bert", learning_rate=5e-3, num_epochs=1
    )
    outcomes = Engine(device="cpu").run_all([trial, dataclasses.replace(trial, seed=1)])
    assert [outcome.status for outcome in outcomes] == [OutcomeStatus.COMPLETED] * 2
    outcome = Engine(device="cpu").run(trial, save_to=tmp_path / "saved")
    assert outcome.test_score == outcomes[0].test_score
    assert len(trainables.load(tmp_path / "saved").predict(["good w1", "w2 bad"])) == 2
