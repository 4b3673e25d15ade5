"""Scores over whole splits: every row once, in the order of the split, and no score from what is no number."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import pytest
import sklearn.metrics
import torch
import torch.nn.functional as F

from tests.factories import trial_config
from trainables import metrics
from trainables.backbones.loading import Backbone
from trainables.data.tokenized import TokenizedSplit
from trainables.training import evaluation
from trainables.training.evaluation import evaluate, predict, score, to_device
from trainables.training.loss import TrainingDivergedError, example_losses
from trainables.training.model import AdaptedModel, build_model

CPU = torch.device("cpu")
MakeSplits = Callable[..., Mapping[str, TokenizedSplit]]


def build(backbone: Backbone, num_outputs: int = 2) -> AdaptedModel:
    config = trial_config()
    model = build_model(backbone.encoder, [config], num_outputs)
    torch.nn.init.normal_(model.head.weight, generator=torch.Generator().manual_seed(0))
    return model


@pytest.mark.parametrize("max_tokens", [1, 40, 2048])
def test_predictions_are_in_the_order_of_the_split_however_it_is_cut(
    max_tokens: int, splits: MakeSplits, backbone: Backbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(evaluation.MAX_TOKENS, "cpu", max_tokens)
    split, model = splits()["validation"], build(backbone)
    outputs, labels = predict(model.train(), split)
    assert (outputs.dtype, outputs.shape) == (np.float32, (32, 2))
    assert labels.tolist() == split.labels.tolist()
    for row in range(len(split)):
        here = slice(*split.offsets[row : row + 2])
        ids = torch.from_numpy(split.input_ids[here].astype(np.int64))[None]
        with torch.no_grad():
            alone = model.eval()(ids, torch.zeros_like(ids))
        np.testing.assert_allclose(outputs[row], alone[0].numpy(), atol=2e-6)
    assert np.ptp(outputs[:, 0]) > 0.1  # rows differ, so an order mistaken would show


def test_a_score_is_the_metric_of_the_largest_outputs(splits: MakeSplits, backbone: Backbone) -> None:
    split, model = splits()["validation"], build(backbone)
    outputs, labels = predict(model, split)
    scores = evaluate(model, split, metrics.get("accuracy"))
    assert scores["accuracy"] == np.mean(outputs.argmax(axis=1) == labels)
    expected = F.cross_entropy(torch.from_numpy(outputs), torch.tensor(labels)).item()
    assert scores == {"accuracy": scores["accuracy"], "loss": pytest.approx(expected)}


def test_a_regression_is_scored_by_its_one_output(splits: MakeSplits, backbone: Backbone) -> None:
    split, model = splits(kind="regression")["validation"], build(backbone, 1)
    outputs, labels = predict(model, split)
    scores = evaluate(model, split, metrics.get("pearson"))
    assert scores["pearson"] == pytest.approx(np.corrcoef(outputs[:, 0], labels)[0, 1], abs=1e-6)
    assert scores["loss"] == pytest.approx(np.mean((outputs[:, 0] - labels) ** 2), rel=1e-5)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_classes_picked_from_no_numbers_are_no_score(value: float, splits: MakeSplits, backbone: Backbone) -> None:
    model = build(backbone)
    torch.nn.init.constant_(model.head.bias, value)
    with pytest.raises(TrainingDivergedError, match="the evaluation loss became nan"):
        evaluate(model, splits()["validation"], metrics.get("accuracy"))


def test_an_evaluation_keeps_no_graph_and_leaves_no_gradient(splits: MakeSplits, backbone: Backbone) -> None:
    model = build(backbone)
    evaluate(model, splits()["validation"], metrics.get("accuracy"))
    assert all(parameter.grad is None for parameter in model.parameters())
    assert not any(parameter.is_inference() for parameter in model.parameters())


def test_a_batch_has_lengths_only_where_it_is_padded(splits: MakeSplits) -> None:
    split = splits()["train"]
    lengths = split.lengths
    same = np.flatnonzero(lengths == lengths[0])[:3]
    (ids, types, none), labels = to_device(split, same, CPU)
    assert none is None
    assert ids.shape == types.shape == (len(same), lengths[0])
    assert labels.tolist() == split.labels[same].tolist()
    ragged = np.array([lengths.argmin(), lengths.argmax()])
    (ids, _, kept), _ = to_device(split, ragged, CPU)
    assert kept is not None
    assert kept.tolist() == lengths[ragged].tolist()
    assert ids.shape == (2, lengths.max())


def test_the_loss_of_classes_is_cross_entropy_and_of_a_number_its_squared_error() -> None:
    outputs = torch.randn(5, 3, generator=torch.Generator().manual_seed(0))
    classes = torch.tensor([0, 2, 1, 1, 0])
    assert torch.equal(example_losses(outputs, classes), F.cross_entropy(outputs, classes, reduction="none"))
    numbers = torch.tensor([0.0, 0.5, 1.0, 1.5, 2.0], dtype=torch.float64)
    expected = (outputs[:, 0] - numbers).square()
    torch.testing.assert_close(example_losses(outputs[:, :1], numbers), expected.float())


def test_the_outputs_of_the_head_say_how_many_classes_f1_averages_over(splits: MakeSplits) -> None:
    split = splits()["validation"]
    outputs = np.zeros((len(split), 3), np.float32)
    chosen = (np.arange(len(split)) % 3 > 0).astype(int)  # the third class is neither right nor chosen
    outputs[np.arange(len(split)), chosen] = 1.0
    found = {width: score(outputs[:, :width], split, metrics.get("f1"))["f1"] for width in (2, 3)}
    assert found[2] == sklearn.metrics.f1_score(split.labels, chosen)
    assert found[3] == sklearn.metrics.f1_score(split.labels, chosen, average="macro")
    assert found[2] != found[3]
