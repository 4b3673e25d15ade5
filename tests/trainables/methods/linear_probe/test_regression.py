"""Fits against scikit-learn's, and at their optimum."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.utils.class_weight import compute_sample_weight
from torch import Tensor

from trainables.methods import LinearHead
from trainables.methods.linear_probe import regression
from trainables.methods.linear_probe.regression import Directions, NotConvergedError, SoftmaxRegression, fit_number

ROWS, WIDTH = 200, 12


def features(seed: int = 0) -> Tensor:
    """Of different means and spreads, and not at right angles."""
    rng = np.random.default_rng(seed)
    mixed = rng.standard_normal((ROWS, WIDTH)) @ rng.standard_normal((WIDTH, WIDTH))
    return torch.from_numpy(mixed * rng.uniform(0.01, 30, WIDTH) + rng.uniform(-5, 5, WIDTH))


def classes(rows: Tensor, num_classes: int, seed: int = 1) -> Tensor:
    rng = np.random.default_rng(seed)
    outputs = standardised(rows).numpy() @ rng.standard_normal((WIDTH, num_classes))
    return torch.from_numpy((outputs + rng.gumbel(size=outputs.shape)).argmax(axis=1))


def standardised(rows: Tensor) -> Tensor:
    return (rows - rows.mean(dim=0)) / rows.std(dim=0, correction=0)


def gradient(head: LinearHead, rows: Tensor, labels: Tensor, l2: float) -> Tensor:
    """Of what is minimised, by the coefficients of standardised features and the bias; by autograd."""
    inputs, std = standardised(rows), rows.std(dim=0, correction=0)
    weight = (head.weight * std[:, None]).requires_grad_()
    bias = (head.bias + rows.mean(dim=0) @ head.weight).requires_grad_()
    loss = F.cross_entropy(inputs @ weight + bias, labels) + l2 / 2 * weight.square().sum()
    return torch.cat([part.flatten() for part in torch.autograd.grad(loss, [weight, bias])])


@pytest.mark.parametrize("l2", [1e-5, 1e-3, 1e-1, 10.0])
@pytest.mark.parametrize("num_classes", [2, 3, 7])
def test_a_softmax_is_fitted_to_its_optimum(num_classes: int, l2: float) -> None:
    rows = features()
    labels = classes(rows, num_classes)
    head = SoftmaxRegression(Directions(rows), labels, num_classes).fit(l2)
    assert gradient(head, rows, labels, l2).norm() < 1e-7


@pytest.mark.parametrize("l2", [1e-3, 1e-1])
@pytest.mark.parametrize("num_classes", [2, 3, 7])
@pytest.mark.thinned(2)
def test_a_softmax_is_scikit_learn_s_logistic_regression(num_classes: int, l2: float) -> None:
    rows = features()
    labels = classes(rows, num_classes)
    head = SoftmaxRegression(Directions(rows), labels, num_classes).fit(l2)
    strength = (2 if num_classes == 2 else 1) / (ROWS * l2)
    theirs = LogisticRegression(C=strength, tol=1e-10, max_iter=10_000).fit(standardised(rows).numpy(), labels.numpy())
    expected = theirs.predict_proba(standardised(rows).numpy())
    np.testing.assert_allclose(head(rows).softmax(dim=1).numpy(), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("num_classes", [2, 5])
def test_with_weights_it_is_scikit_learn_s_with_balanced_classes(num_classes: int) -> None:
    rows, l2 = features(), 1e-2
    labels = classes(rows, num_classes) * (torch.arange(ROWS) % 3 == 0)  # many rows of class 0
    weights = torch.from_numpy(compute_sample_weight("balanced", labels.numpy()))
    head = SoftmaxRegression(Directions(rows), labels, num_classes, weights).fit(l2)
    strength = (2 if num_classes == 2 else 1) / (ROWS * l2)
    theirs = LogisticRegression(C=strength, tol=1e-10, max_iter=10_000, class_weight="balanced")
    expected = theirs.fit(standardised(rows).numpy(), labels.numpy()).predict_proba(standardised(rows).numpy())
    np.testing.assert_allclose(head(rows).softmax(dim=1).numpy(), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("l2", [1e-4, 1e-1, 10.0])
def test_a_number_is_fitted_by_scikit_learn_s_ridge(l2: float) -> None:
    rows = features()
    labels = standardised(rows) @ torch.arange(WIDTH, dtype=torch.float64) + 3.0 + features(2)[:, 0]
    (head,) = fit_number(Directions(rows), labels, [l2])
    theirs = Ridge(alpha=ROWS * l2, solver="cholesky").fit(standardised(rows).numpy(), labels.numpy())
    np.testing.assert_allclose(head(rows)[:, 0].numpy(), theirs.predict(standardised(rows).numpy()), rtol=1e-9)


def test_where_it_starts_from_does_not_matter() -> None:
    rows = features()
    labels = classes(rows, 3)
    path = SoftmaxRegression(Directions(rows), labels, 3)
    for l2 in (10.0, 1.0, 1e-2):
        path.fit(l2, 1e-2)
    alone = SoftmaxRegression(Directions(rows), labels, 3)
    torch.testing.assert_close(path.fit(1e-3)(rows), alone.fit(1e-3)(rows), rtol=0, atol=1e-5)


def test_features_that_do_not_vary_and_more_features_than_rows_are_no_trouble() -> None:
    rows = torch.cat([features()[:8], torch.full((8, 1), 0.1)], dim=1)  # 13 features of 8 rows
    labels = torch.tensor([0, 1, 2, 0, 1, 2, 0, 1])
    head = SoftmaxRegression(Directions(rows), labels, 3).fit(1e-2)
    assert not head.weight[-1].any()
    assert torch.equal(head(rows).argmax(dim=1), labels)
    (ridge,) = fit_number(Directions(rows), labels.double(), [1e-6])
    torch.testing.assert_close(ridge(rows)[:, 0], labels.double(), rtol=0, atol=1e-4)
    constant = SoftmaxRegression(Directions(torch.ones(8, 3, dtype=torch.float64)), labels, 3).fit(1e-2)
    torch.testing.assert_close(constant.bias.softmax(dim=0), torch.tensor([3, 3, 2], dtype=torch.float64) / 8)


def test_a_class_without_a_row_is_possible_and_never_predicted() -> None:
    rows = features()
    labels = classes(rows, 3)
    labels[labels == 1] = 4
    head = SoftmaxRegression(Directions(rows), labels, 6).fit(1e-2)
    assert head.weight.shape == (WIDTH, 6)
    outputs = head(rows)
    assert set(outputs.argmax(dim=1).tolist()) == {0, 2, 4}
    torch.testing.assert_close(outputs[:, 1], torch.full((ROWS,), -math.log(1 + ROWS), dtype=torch.float64))
    without = SoftmaxRegression(Directions(rows), torch.unique(labels, return_inverse=True)[1], 3).fit(1e-2)
    torch.testing.assert_close(outputs[:, [0, 2, 4]], without(rows), rtol=0, atol=1e-5)


def test_one_class_alone_is_what_is_predicted() -> None:
    rows = features()
    head = SoftmaxRegression(Directions(rows), torch.ones(ROWS, dtype=torch.int64), 3).fit(1e-2)
    assert set(head(rows).argmax(dim=1).tolist()) == {1}


def test_a_fit_that_cannot_come_closer_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(regression, "_MAX_NEWTON_STEPS", 3)  # it would not come closer in two hundred
    rows = features()
    with pytest.raises(NotConvergedError, match=r"l2 0\.01 stopped with a gradient of length"):
        SoftmaxRegression(Directions(rows), classes(rows, 3), 3).fit(1e-2, tolerance=0.0)
