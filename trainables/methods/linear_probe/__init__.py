"""A linear probe: a regularised linear model of the frozen backbone's features, fitted to the optimum.

Logistic regression (a softmax with cross-entropy) for classes, one for each of several labels, ridge regression for a
number, with the sum of squares of the coefficients as penalty. It is the baseline that is tried first: nothing of it is
tuned by hand, and a trial takes seconds. Features are computed once a task, as those of `feature_based` are, and
standardised by the mean and standard deviation of the training rows; the model is then written as a plain linear head
of the features as they are.

The strength of the penalty is chosen on the validation rows: of `PENALTIES`, from the strongest down, the one with the
best score; among equal scores the one with the lower loss. The search ends where `PATIENCE` strengths in a row were no
better in either. Nothing is drawn at random, so every seed gives the same scores.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import torch

from trainables.methods import ALONE, Alone, Judge, LabelledFeatures, LinearHead
from trainables.methods.linear_probe.regression import (
    Directions,
    SigmoidRegression,
    SoftmaxRegression,
    fit_number,
)
from trainables.nn.encoder import Encoder
from trainables.nn.encoder_shape import EncoderShape

KINDS = ("classification", "regression", "multilabel")
ON_ANY_MODEL = True
# It has no steps, no gradients to clip and nothing to drop out.
UNUSED = ("learning_rate", "num_epochs", "batch_size", "warmup_ratio", "weight_decay", "max_grad_norm", "dropout")
# Two a decade, the strongest first: each fit starts where the last one ended.
PENALTIES = tuple(10 ** (exponent / 2) for exponent in range(2, -11, -1))
PATIENCE = 2
# While strengths are compared, a fit may be so much above its least loss; the chosen one goes on to its optimum.
COMPARED = 1e-4


@dataclass(frozen=True, kw_only=True)
class Options:
    """`pooling` is what a feature is: the "mean" over word pieces, the "first" token's, what the "pooler" gives, or
    "auto", what the backbone was trained to be read by.

    `l2` is the strength of the penalty, in the terms of `trainables.methods.linear_probe.regression`; null has it
    chosen on the validation rows.
    """

    pooling: str = "auto"
    l2: float | None = None

    def faults(self, shape: EncoderShape) -> list[str]:
        if self.l2 is None or 1e-8 <= self.l2 <= 1e4:
            return []
        return [f"l2: must be in [1e-8, 1e4] or null, but got {self.l2}"]


def adapt(view: Encoder, options: Sequence[Options], generators: Sequence[torch.Generator]) -> None:
    """Nothing but the head is trained."""


def trained_params(shape: EncoderShape, options: Options) -> int:
    """None but the head's, C (D + 1)."""
    return 0


def stack_key(options: Options) -> Alone:
    return ALONE  # each is fitted by itself, and what could be shared, the features, is kept


def starts_unchanged(options: Options) -> bool:
    return True


def fit(train: LabelledFeatures, options: Options, judge: Judge) -> LinearHead:
    """The head that is best for the training rows; how strong its penalty is, `judge` decides where no option does."""
    directions = Directions(train.features)
    if train.num_classes is None and train.labels.ndim == 1:
        ridges = zip(PENALTIES, fit_number(directions, train.labels, PENALTIES), strict=True)
        l2 = options.l2 or _chosen(ridges, judge)
        (best,) = fit_number(directions, train.labels, [l2])
        return replace(best, l2=l2)
    regression: SoftmaxRegression | SigmoidRegression
    if train.num_classes is None:
        regression = SigmoidRegression(directions, train.labels)
    else:
        regression = SoftmaxRegression(directions, train.labels, train.num_classes, train.weights)
    # A loss that curves by l2 or more in every direction is at most length**2 / (2 l2) above its least.
    heads = ((l2, regression.fit(l2, math.sqrt(2 * COMPARED * l2))) for l2 in PENALTIES)
    l2 = options.l2 or _chosen(heads, judge)
    return replace(regression.fit(l2), l2=l2)


def _chosen(heads: Iterable[tuple[float, LinearHead]], judge: Judge) -> float:
    """The strength of the best head; no further ones are asked for where several in a row were no better."""
    best_score, least_loss, in_vain = -math.inf, math.inf, 0
    chosen, loss_of_chosen = math.nan, math.inf
    for l2, head in heads:
        score, loss = judge(head)
        if (score, -loss) > (best_score, -loss_of_chosen):
            chosen, loss_of_chosen = l2, loss
        in_vain = 0 if score > best_score or loss < least_loss else in_vain + 1
        if in_vain == PATIENCE:
            break
        best_score, least_loss = max(best_score, score), min(least_loss, loss)
    return chosen
