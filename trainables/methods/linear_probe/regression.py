"""Regularised linear models of standardised features, fitted to the optimum in float64.

What is minimised, W being the coefficients of standardised features, whose bias costs nothing:

- classes: the mean cross-entropy of a softmax + l2 / 2 * the sum of squares of W. In scikit-learn's terms, C is
  1 / (N l2) for three classes or more; of two classes scikit-learn keeps the difference alone, and its C is 2 / (N l2).
  Rows may have weights, 1 in the mean, by which their cross-entropies count.
- several labels: the same for each label alone, of its binary cross-entropy by a sigmoid (binary relevance). In
  scikit-learn's terms, C is 1 / (N l2).
- a number: half the mean squared error + l2 / 2 * the sum of squares of W. In scikit-learn's terms, alpha is N l2.

Suffixes: N rows, D features, R directions in which features vary, C outputs (classes, or 1 for a number).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from trainables.methods import LinearHead

# Length of the gradient at which a fit is at its optimum. Rounding alone leaves about 1e-12.
OPTIMUM = 1e-8
# A direction is one in which features vary where its variance is more than this share of the largest.
_VARYING = 1e-10
_MAX_NEWTON_STEPS, _MAX_PRODUCTS, _MAX_HALVINGS = 200, 500, 30


class NotConvergedError(RuntimeError):
    """A fit that has not come to its optimum."""


class Directions:
    """Standardised features along their principal directions, which are at right angles: what every fit starts from.

    A rotation changes neither the sum of squares of the coefficients nor the optimum. It makes the curvature of the
    loss nearly diagonal, so that an optimum is a few steps away instead of hundreds.
    """

    def __init__(self, features_ND: Tensor) -> None:
        self.mean_D = features_ND.mean(dim=0)
        centred_ND = features_ND - self.mean_D
        std_D = centred_ND.square().mean(dim=0).sqrt()
        # A feature that does not vary says nothing, and its coefficient is 0.
        is_varying_D = std_D > 1e-9 * (1e-9 + self.mean_D.abs())
        self._scale_D = torch.where(is_varying_D, 1 / std_D.where(is_varying_D, std_D.new_ones(())), 0.0)
        standardised_ND = centred_ND * self._scale_D
        variances_D, axes_DD = torch.linalg.eigh(standardised_ND.T @ standardised_ND / len(features_ND))
        kept = variances_D > _VARYING * variances_D[-1].clamp_min(torch.finfo(torch.float64).tiny)
        self.variances_R, self._axes_DR = variances_D[kept], axes_DD[:, kept]
        self.rows_NR = standardised_ND @ self._axes_DR

    def linear(self, weight_RC: Tensor, bias_C: Tensor) -> LinearHead:
        """A model of these directions as one of the features themselves."""
        weight_DC = self._scale_D[:, None] * (self._axes_DR @ weight_RC)
        return LinearHead(weight=weight_DC, bias=bias_C - self.mean_D @ weight_DC)


def fit_number(directions: Directions, labels_N: Tensor, penalties: Sequence[float]) -> Iterator[LinearHead]:
    """Ridge regression for each penalty, in closed form."""
    mean = labels_N.mean()
    covariances_R = directions.rows_NR.T @ (labels_N - mean) / len(labels_N)
    for l2 in penalties:
        weight_R = covariances_R / (directions.variances_R + l2)
        yield directions.linear(weight_R[:, None], mean[None])


@dataclass(frozen=True, kw_only=True)
class _Link:
    """How outputs (N, C) become probabilities."""

    #: outputs and targets -> the logarithm of what the targets are given, by row and output, and the probabilities
    likelihood: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
    #: probabilities and a move of the outputs -> the move of the probabilities
    moved: Callable[[Tensor, Tensor], Tensor]


def _softmax_likelihood(outputs_NC: Tensor, targets_NC: Tensor) -> tuple[Tensor, Tensor]:
    logs_NC = outputs_NC.log_softmax(dim=1)
    return targets_NC * logs_NC, logs_NC.exp()


def _softmax_moved(probabilities_NC: Tensor, moved_NC: Tensor) -> Tensor:
    return probabilities_NC * (moved_NC - (probabilities_NC * moved_NC).sum(dim=1, keepdim=True))


def _sigmoid_likelihood(outputs_NC: Tensor, targets_NC: Tensor) -> tuple[Tensor, Tensor]:
    signs_NC = 2 * targets_NC - 1
    return F.logsigmoid(signs_NC * outputs_NC), outputs_NC.sigmoid()


def _sigmoid_moved(probabilities_NC: Tensor, moved_NC: Tensor) -> Tensor:
    return probabilities_NC * (1 - probabilities_NC) * moved_NC


_SOFTMAX = _Link(likelihood=_softmax_likelihood, moved=_softmax_moved)
_SIGMOID = _Link(likelihood=_sigmoid_likelihood, moved=_sigmoid_moved)


class SoftmaxRegression:
    """Fits of a softmax of so many classes, each from where the last one ended.

    A class without a training row has no optimum: the less likely, the better. It gets the bias of one that was seen
    less than once, which is never the largest output, since the others' have a mean of 0.
    """

    def __init__(
        self, directions: Directions, labels_N: Tensor, num_classes: int, weights_N: Tensor | None = None
    ) -> None:
        self._directions, self._num_classes, self._num_rows = directions, num_classes, len(labels_N)
        self._classes, places_N = torch.unique(labels_N, return_inverse=True)
        is_of_NC = F.one_hot(places_N, len(self._classes)).to(directions.rows_NR.dtype)
        self._fits = _Fits(directions, is_of_NC, _SOFTMAX, weights_N)

    def fit(self, l2: float, tolerance: float = OPTIMUM) -> LinearHead:
        """The fit whose gradient, along the directions, is no longer than the tolerance.

        Raises `NotConvergedError` where rounding keeps it from getting there.
        """
        values_EC = self._fits.fit(l2, tolerance)
        values_EC[-1] -= values_EC[-1].mean()  # which no probability depends on
        weight_RC, bias_C = values_EC[:-1], values_EC[-1]
        weight = weight_RC.new_zeros(len(weight_RC), self._num_classes)
        bias = bias_C.new_full((self._num_classes,), -math.log(1 + self._num_rows))
        weight[:, self._classes], bias[self._classes] = weight_RC, bias_C
        return self._directions.linear(weight, bias)


class SigmoidRegression:
    """Fits of a sigmoid for each of several labels, each from where the last one ended.

    `labels_NC` is 1 where a row has a label and 0 elsewhere. A label that no training row has, or every one, has no
    optimum either; it gets a bias by which it is as likely as if a row more were otherwise.
    """

    def __init__(self, directions: Directions, labels_NC: Tensor) -> None:
        self._directions = directions
        counts_C = labels_NC.sum(dim=0)
        self._varies_C = (counts_C > 0) & (counts_C < len(labels_NC))
        self._constant_bias_C = torch.where(counts_C > 0, 1.0, -1.0) * math.log(1 + len(labels_NC))
        self._fits = _Fits(directions, labels_NC[:, self._varies_C].to(directions.rows_NR.dtype), _SIGMOID)

    def fit(self, l2: float, tolerance: float = OPTIMUM) -> LinearHead:
        """As `SoftmaxRegression.fit`."""
        values_EC = self._fits.fit(l2, tolerance)
        weight = values_EC.new_zeros(len(values_EC) - 1, len(self._varies_C))
        bias = self._constant_bias_C.to(values_EC.dtype)
        weight[:, self._varies_C], bias[self._varies_C] = values_EC[:-1], values_EC[-1]
        return self._directions.linear(weight, bias)


class _Fits:
    """Coefficients along the directions, and last the biases, for which targets (N, C) are likeliest.

    `weights_N` are how much the loss of each row counts; None where all count the same.
    """

    def __init__(
        self, directions: Directions, targets_NC: Tensor, link: _Link, weights_N: Tensor | None = None
    ) -> None:
        rows_NR = directions.rows_NR
        self._rows_NE = torch.cat([rows_NR, rows_NR.new_ones(len(rows_NR), 1)], dim=1)  # E = R + 1, the bias's one
        self._variances_E = torch.cat([directions.variances_R, rows_NR.new_ones(1)])
        self._targets_NC, self._link = targets_NC, link
        self._weights_N1 = None if weights_N is None else weights_N[:, None]
        self._values_EC = rows_NR.new_zeros(self._rows_NE.shape[1], targets_NC.shape[1])

    def fit(self, l2: float, tolerance: float) -> Tensor:
        """The values (E, C) for this penalty, from which the next fit will start."""
        self._values_EC = self._newton(self._values_EC, l2, tolerance)
        return self._values_EC

    def _newton(self, values_EC: Tensor, l2: float, tolerance: float) -> Tensor:
        """Newton's method with conjugate gradients (Nocedal and Wright 2006, algorithm 7.1) from these values."""
        penalties_E1 = values_EC.new_full((len(values_EC), 1), l2)
        penalties_E1[-1] = 0  # the bias's
        loss, gradient_EC, probabilities_NC = self._at(values_EC, penalties_E1)
        for _ in range(_MAX_NEWTON_STEPS):
            length = gradient_EC.norm().item()
            if length <= tolerance:
                return values_EC
            step_EC = self._step(gradient_EC, probabilities_NC, penalties_E1)
            slope = (step_EC * gradient_EC).sum().item()
            share = 1.0
            for _ in range(_MAX_HALVINGS):
                candidate_EC = values_EC + share * step_EC
                found = self._at(candidate_EC, penalties_E1)
                # Near the optimum the loss no longer changes in its digits, and the gradient alone tells.
                if found[0] <= loss + 1e-4 * share * slope or found[1].norm().item() < length:
                    break
                share /= 2
            else:
                break
            values_EC, (loss, gradient_EC, probabilities_NC) = candidate_EC, found
        raise NotConvergedError(f"the fit with l2 {l2:g} stopped with a gradient of length {length:.1e}")

    def _at(self, values_EC: Tensor, penalties_E1: Tensor) -> tuple[float, Tensor, Tensor]:
        """The penalised loss, its gradient (E, C) and the probabilities of the rows (N, C)."""
        likelihood_NC, probabilities_NC = self._link.likelihood(self._rows_NE @ values_EC, self._targets_NC)
        penalised_EC = penalties_E1 * values_EC
        of_rows = self._weighed(likelihood_NC).sum() / len(likelihood_NC)
        loss = (penalised_EC * values_EC).sum() / 2 - of_rows
        errors_NC = self._weighed(probabilities_NC - self._targets_NC)
        return loss.item(), self._mean_over_rows(errors_NC) + penalised_EC, probabilities_NC

    def _weighed(self, values_NC: Tensor) -> Tensor:
        return values_NC if self._weights_N1 is None else values_NC * self._weights_N1

    def _step(self, gradient_EC: Tensor, probabilities_NC: Tensor, penalties_E1: Tensor) -> Tensor:
        """What solves `curvature @ step = -gradient`, the closer the shorter the gradient."""
        # What the curvature would be if every row were as undecided as the mean: its inverse leads the way.
        undecided_C = (probabilities_NC * (1 - probabilities_NC)).mean(dim=0).clamp_min(1e-12)
        curvature_EC = self._variances_E[:, None] * undecided_C + penalties_E1
        step_EC, residual_EC = torch.zeros_like(gradient_EC), -gradient_EC
        length = gradient_EC.norm().item()
        enough = min(0.1, math.sqrt(length)) * length
        leaning_EC = residual_EC / curvature_EC
        direction_EC, product = leaning_EC, (residual_EC * leaning_EC).sum()
        for _ in range(_MAX_PRODUCTS):
            moved_NC = self._link.moved(probabilities_NC, self._rows_NE @ direction_EC)
            curved_EC = self._mean_over_rows(self._weighed(moved_NC)) + penalties_E1 * direction_EC
            share = product / (direction_EC * curved_EC).sum()
            step_EC = step_EC + share * direction_EC
            residual_EC = residual_EC - share * curved_EC
            if residual_EC.norm().item() <= enough:
                break
            leaning_EC = residual_EC / curvature_EC
            last, product = product, (residual_EC * leaning_EC).sum()
            direction_EC = leaning_EC + product / last * direction_EC
        return step_EC

    def _mean_over_rows(self, values_NC: Tensor) -> Tensor:
        """The mean over rows of each direction times each value (E, C)."""
        return (values_NC.T @ self._rows_NE).T / len(values_NC)  # twice as fast as with the rows transposed
