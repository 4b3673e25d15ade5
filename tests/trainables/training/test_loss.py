"""Class weights: scikit-learn's, and what they make of the loss of each trial."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.utils.class_weight import compute_class_weight

from tests.factories import brief_config
from tests.fixtures import MakeTask
from tests.trainables.training.packable import TASK
from trainables.engine.engine import Engine
from trainables.faults import FaultsError
from trainables.outcome import OutcomeStatus
from trainables.training.loss import class_weights, example_losses, trial_losses, weight_matrix

LABELS = np.array([0] * 12 + [1] * 3 + [2] * 5)
NAMED = dataclasses.replace(TASK, label_names=("ham", "spam", "a=b"))


def test_balanced_is_scikit_learn_s() -> None:
    expected = compute_class_weight("balanced", classes=np.arange(3), y=LABELS)
    np.testing.assert_allclose(class_weights("balanced", TASK, LABELS), expected, rtol=1e-15)
    wider = dataclasses.replace(TASK, num_labels=4)  # a class that has no row in train
    np.testing.assert_allclose(class_weights("balanced", wider, LABELS), [*expected, 1.0], rtol=1e-15)
    assert class_weights("none", TASK, LABELS) is None


def test_of_weights_by_label_only_the_ratios_count() -> None:
    found = class_weights("spam=4, a=b=0.5", NAMED, LABELS)
    assert found is not None
    np.testing.assert_allclose(found / found[0], [1, 4, 0.5])
    assert found[LABELS].mean() == pytest.approx(1)
    np.testing.assert_allclose(class_weights("ham=10, spam=40, a=b=5", NAMED, LABELS), found)
    np.testing.assert_allclose(class_weights("1=4, 2=0.5", TASK, LABELS), found)


def test_a_loss_is_the_mean_of_weighted_losses_and_each_trial_has_its_own_weights() -> None:
    outputs = torch.randn(8, 3, generator=torch.Generator().manual_seed(0))
    labels = torch.tensor([0, 1, 2, 1, 0, 1, 2, 1])
    losses = example_losses(outputs, labels)
    weights = np.array([0.5, 2.0, 1.5])
    matrix = weight_matrix([weights, None], torch.device("cpu"))
    found = trial_losses(losses, labels, matrix, 2)
    weighted = torch.nn.CrossEntropyLoss(weight=torch.tensor([0.5, 2.0, 1.5]), reduction="sum")
    torch.testing.assert_close(found[0], weighted(outputs[:4], labels[:4]) / 4)
    assert found[1] == losses[4:].mean()
    assert weight_matrix([None, None], torch.device("cpu")) is None


@pytest.mark.parametrize(
    ("asked", "changes", "said"),
    [
        ("balanced", {"kind": "regression", "num_labels": 1}, "any is of kind regression: leave class_weights at none"),
        ("spma=2", {"label_names": ("ham", "spam", "eggs")}, "did you mean 'spam'"),
        ("3=2", {}, "unknown label of any '3'"),
    ],
)
def test_a_task_whose_classes_cannot_be_weighed_so_is_refused(
    asked: str, changes: dict[str, object], said: str
) -> None:
    with pytest.raises(FaultsError, match=said):
        class_weights(asked, dataclasses.replace(TASK, **changes), LABELS)  # type: ignore[arg-type]


@pytest.mark.parametrize("method", ["adapter", "feature_based", "linear_probe", "no_bert"])
def test_a_rare_class_is_predicted_more_often_where_it_weighs_more(
    method: str, task_folder: MakeTask, tiny_bert: Path, engine: Engine
) -> None:
    config = brief_config(method, task=str(task_folder(rows=64)), backbone=str(tiny_bert), max_length=16)
    found = {
        weights: engine.run(dataclasses.replace(config, class_weights=weights), keep_predictions=True)
        for weights in ("0=1000", "1=1000")
    }
    for outcome in found.values():
        assert outcome.status is OutcomeStatus.COMPLETED, outcome.error
    ones = {weights: int(np.sum(outcome.predictions["test"].values)) for weights, outcome in found.items()}
    assert ones["0=1000"] < ones["1=1000"]
