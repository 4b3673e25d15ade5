"""Means with their standard errors and intervals: over seeds, and over seeds and test rows together.

Sums are correctly rounded where scores are ranked by them, so that two configurations with the same scores tie exactly,
whatever the order of their seeds.

A test score scatters for two reasons: another seed trains another model, and another test set holds other rows. All
seeds are scored on the same rows, so more seeds make the first part smaller and leave the second as it is. The
functions whose names end in `_rows` put both into one standard error; an interval from seeds alone speaks of these test
rows only, and is too narrow for the claim that a method is better on the task.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from orchestrator.analysis.statistics.checked import fraction, matrix, same_length, vector


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """A mean, how far it may be off, and how well that is known."""

    mean: float
    standard_error: float
    degrees_of_freedom: float

    def interval(self, confidence: float = 0.95) -> tuple[float, float]:
        """The two-sided Student interval: mean -+ t * standard error, at the estimate's degrees of freedom."""
        half_width = student_quantile(self.degrees_of_freedom, (1 + fraction(confidence, "confidence")) / 2)
        return self.mean - half_width * self.standard_error, self.mean + half_width * self.standard_error


def mean(scores: npt.ArrayLike) -> float:
    """The arithmetic mean of `(n,)` scores, n >= 1. Raises `ValueError` on none, or on one that is not finite."""
    return mean_and_standard_error(vector(scores).tolist())[0]


def standard_error(scores: npt.ArrayLike) -> float | None:
    """The standard error of the mean of `(n,)` scores: sample standard deviation (ddof = 1) over sqrt(n).

    None where n = 1, since one score says nothing about its spread. Raises `ValueError` as `mean` does.
    """
    return mean_and_standard_error(vector(scores).tolist())[1]


def mean_and_standard_error(scores: Sequence[float]) -> tuple[float, float | None]:
    """Both of finite scores, at least one, which are not checked: quick where there are many short rows of scores."""
    n = len(scores)
    centre = math.fsum(scores) / n
    if n < 2:
        return centre, None
    if min(scores) == max(scores):  # from which the rounded mean may differ in its last digit
        return centre, 0.0
    return centre, math.sqrt(math.fsum([(score - centre) ** 2 for score in scores]) / (n - 1) / n)


def t_interval(scores: npt.ArrayLike, *, confidence: float = 0.95) -> tuple[float, float] | None:
    """The two-sided Student interval of the mean of `(n,)` scores: mean -+ t * standard error.

    t is the quantile (1 + confidence) / 2 of Student's distribution with n - 1 degrees of freedom. The interval covers
    the mean over seeds with probability `confidence` where scores are close to normal; it says nothing about other
    tasks or other splits. None where n = 1. Raises `ValueError` as `mean` does, or unless 0 < confidence < 1.
    """
    fraction(confidence, "confidence")
    error = standard_error(scores)
    if error is None:
        return None
    return Estimate(mean=mean(scores), standard_error=error, degrees_of_freedom=np.size(scores) - 1).interval(
        confidence
    )


def corrected_over_folds(scores: npt.ArrayLike, num_folds: int) -> Estimate | None:
    """The mean of `(n,)` scores, or of paired differences, of models that were each validated on one of k folds.

    variance = (1 / n + 1 / (k - 1)) s^2

    with s^2 the sample variance (ddof = 1) and n - 1 degrees of freedom; n is k, or less where some folds are missing.
    Of several seeds on the same folds, give each fold's mean: they are no further draws, and taken for such the
    interval covers as little as 81 % where seeds do not differ. Any two of the models share (k - 2) / (k - 1) of the
    rows that they were trained on, so their scores are correlated and s^2 / n is too small; no estimate from one round
    of folds is unbiased (Bengio and Grandvalet 2004). 1 / (k - 1) is what a fold's rows are of those it is trained on,
    by which Nadeau and Bengio (2003) widen the variance of the resampled t-test. It is meant for scores on the folds
    themselves; of scores that all models have on one test it is an approximation too, and says nothing about other test
    rows. None where n = 1.
    """
    error = standard_error(scores)
    widening = _widening(n := np.size(scores), num_folds)
    if error is None:
        return None
    return Estimate(mean=mean(scores), standard_error=error * math.sqrt(widening), degrees_of_freedom=n - 1)


def _widening(number: int, num_folds: int) -> float:
    """By how much the variance of a mean of so many scores is larger over folds than it were over independent ones."""
    if num_folds < 2:
        raise ValueError(f"num_folds: must be at least 2, but got {num_folds!r}")
    return 1 + number / (num_folds - 1)


def student_quantile(degrees_of_freedom: float, level: float) -> float:
    """The quantile of Student's distribution; that of the normal distribution at infinitely many degrees of freedom."""
    from scipy.special import ndtri, stdtrit  # loaded when first asked for: reading a table needs no scipy

    return float(ndtri(level) if math.isinf(degrees_of_freedom) else stdtrit(degrees_of_freedom, level))


def welch(first: npt.ArrayLike, second: npt.ArrayLike) -> Estimate | None:
    """The difference of the means of `(n,)` and `(m,)` independent scores, first less second, n and m >= 2.

    The variance is the sum of both squared standard errors, the degrees of freedom are those of Welch (1947) and
    Satterthwaite (1946): nothing is assumed of the two spreads. None where either side has one score.
    """
    ours, theirs = standard_error(first), standard_error(second)
    if ours is None or theirs is None:
        return None
    parts = [(ours**2, np.size(first) - 1), (theirs**2, np.size(second) - 1)]
    return _combine(mean(first) - mean(second), parts)


def welch_with_rows(first: npt.ArrayLike, second: npt.ArrayLike, num_rows: int) -> Estimate | None:
    """As `welch`, of accuracies that are all on the same `num_rows` test rows, for other seeds and other rows.

    To the variance of `welch` p (1 - p) / num_rows is added for each side, p being its mean, as if the two sides got
    independent rows wrong; where p is 0 or 1, that of `unseen_on`. Two models of one task mostly get the same rows
    wrong, so the interval is wider than it need be; `difference_over_rows` is not.
    """
    seeds = welch(first, second)
    if seeds is None:
        return None
    rows = [(_error_of_rows(mean(side), num_rows) ** 2, max(num_rows - 1.0, 1.0)) for side in (first, second)]
    return _combine(seeds.mean, [(seeds.standard_error**2, seeds.degrees_of_freedom), *rows])


def binomial_standard_error(accuracy: float, num_rows: int) -> float:
    """What an accuracy on `num_rows` independent test rows scatters by: sqrt(p (1 - p) / n), p the accuracy.

    On 500 rows, an accuracy of 0.955 has 0.009. The formula holds for a share of right rows and no other metric.
    """
    if not 0 <= accuracy <= 1 or num_rows < 1:
        raise ValueError(f"accuracy must be in [0, 1] on at least one row, but got {accuracy!r} on {num_rows!r}")
    return math.sqrt(accuracy * (1 - accuracy) / num_rows)


def _error_of_rows(accuracy: float, num_rows: int) -> float:
    """As `binomial_standard_error`, which of an accuracy of 0 or 1 knows no spread; see `unseen_on`."""
    share = min(max(accuracy, 0.0), 1.0)
    return binomial_standard_error(share, num_rows) or unseen_on(num_rows, share).standard_error


def estimate_over_seeds_and_rows(accuracies: npt.ArrayLike, num_rows: int) -> Estimate | None:
    """The mean of `(num_seeds,)` accuracies, all on the same `num_rows` test rows, for other seeds and other rows.

    variance = s^2 / num_seeds + p (1 - p) / num_rows

    where s^2 is the sample variance of the accuracies (ddof = 1) and p their mean. The second part is not divided by
    the number of seeds, as they share the rows. Assumes that rows are independent draws and seeds too. It is exact
    where all seeds get the same rows wrong, and too wide otherwise, since what seeds disagree on is then counted in
    both parts: where which rows are wrong is pure chance, the variance comes out (num_seeds + 1) times too large. With
    the outcome of every row use `estimate_over_rows`, which does not count it twice. Where p is 0 or 1, the second part
    is that of `unseen_on`. Degrees of freedom are
    Satterthwaite's, of num_seeds - 1 and num_rows - 1. None where there is one seed: its spread is unknown.
    """
    error = standard_error(accuracies)
    if error is None:
        return None
    centre = mean(accuracies)
    rows = _error_of_rows(centre, num_rows) ** 2
    return _combine(centre, [(error**2, np.size(accuracies) - 1), (rows, max(num_rows - 1, 1))])


def estimate_over_rows(outcomes: npt.ArrayLike, num_folds: int | None = None) -> Estimate | None:
    """The mean of `(num_seeds, num_rows)` outcomes of every seed on every test row, for other seeds and other rows.

    An outcome is 1 where the row was right and 0 elsewhere, or any other number whose mean is the score. Of two methods
    see `difference_over_rows`. Seeds and rows are crossed random
    effects, y = mean + seed + row + rest, and the variance of the mean is estimated without bias by

    variance = (MS_seeds + MS_rows - MS_rest) / (num_seeds num_rows)

    from the mean squares of the two-way table without replication; subtracting MS_rest takes out what would be counted
    in both of the others. Where that would make the part of the seeds or of the rows negative, the part is 0, as is
    usual: seeds that differ by no more than the rest lets expect have no part of their own. Degrees of freedom are
    Satterthwaite's. Assumes independent rows and independent seeds. None where either is one.

    Models that were trained without one of `num_folds` folds each are not independent. What they scatter by has its
    variance widened as in `corrected_over_folds`; of several seeds, give the means of each fold. Of two methods, let
    outcomes be the differences on the same fold.

    Where every outcome is the same, such as right, the table shows no spread, and other rows have some all the same:
    see `unseen_on`.

    Source: Searle, Casella and McCulloch (1992), "Variance Components", chapter 4; Satterthwaite (1946).
    """
    values = matrix(outcomes, "outcomes")
    num_seeds, num_rows = values.shape
    if num_seeds < 2 or num_rows < 2:
        return None
    if values.min() == values.max():
        return unseen_on(num_rows, float(values[0, 0]))
    centre, by_seed, by_row = values.mean(), values.mean(axis=1), values.mean(axis=0)
    rest = values - by_seed[:, None] - by_row[None, :] + centre
    cells = num_seeds * num_rows
    seeds = num_rows * float(((by_seed - centre) ** 2).sum()) / (num_seeds - 1) / cells
    rows = num_seeds * float(((by_row - centre) ** 2).sum()) / (num_rows - 1) / cells
    seeds *= 1.0 if num_folds is None else _widening(num_seeds, num_folds)
    both = float((rest**2).sum()) / ((num_seeds - 1) * (num_rows - 1)) / cells
    parts = [(seeds, num_seeds - 1.0), (rows, num_rows - 1.0), (-both, (num_seeds - 1.0) * (num_rows - 1.0))]
    if seeds <= both:
        parts = parts[1:2] if rows > both else [(both, parts[2][1])]
    elif rows <= both:
        parts = parts[:1]
    return _combine(float(centre), parts)


def difference_over_rows(first: npt.ArrayLike, second: npt.ArrayLike) -> Estimate | None:
    """The difference of the means of two methods' outcomes, first less second, for other seeds and other rows.

    `first` are `(num_seeds, num_rows)` outcomes as in `estimate_over_rows`, `second` `(other_num_seeds, num_rows)` on
    the same rows in the same order. Rows are paired: what is hard for both takes no part. Seeds are not: two methods
    with the same seed share nothing, and a pairing would only halve the degrees of freedom. The variance is

    variance = seeds_first + seeds_second + rows - rest_first - rest_second

    with the squared standard error of each side's means over seeds, that of the per-row difference of both sides' means
    over rows, and MS_rest / (num_seeds num_rows) of each side, which is in the seeds' part and in the rows' part and
    must be counted once. It is unbiased; a part of the seeds or of the rows that would be negative is 0. Degrees of
    freedom are Satterthwaite's, as in `welch`. Where the models of each side agree on every row and no row tells the
    sides further apart than another, see `unseen_on`. None where either side has one seed, or there is one row.
    """
    ours, theirs = matrix(first, "first"), matrix(second, "second")
    same_length(ours[0], theirs[0], "rows")
    if min(len(ours), len(theirs), ours.shape[1]) < 2:
        return None
    differences = ours.mean(axis=0) - theirs.mean(axis=0)
    if (ours == ours[0]).all() and (theirs == theirs[0]).all() and np.ptp(ours[0] - theirs[0]) == 0:
        return unseen_on(ours.shape[1], float(differences[0]))
    rows = float(differences.var(ddof=1)) / len(differences)
    tables = [_seeds_and_rest(side) for side in (ours, theirs)]
    seeds_parts, rest_parts = [seeds for seeds, _ in tables], [rest for _, rest in tables]
    seeds, both = sum(part for part, _ in seeds_parts), sum(part for part, _ in rest_parts)
    parts = [*seeds_parts, (rows, len(differences) - 1.0), *((-part, freedom) for part, freedom in rest_parts)]
    if seeds <= both:
        parts = parts[2:3] if rows > both else rest_parts
    elif rows <= both:
        parts = seeds_parts
    return _combine(float(ours.mean() - theirs.mean()), parts)


def unseen_on(num_rows: int, mean: float) -> Estimate:
    """What is known of other rows where on all of `num_rows` rows the same was seen: no error, or no disagreement.

    That is no proof that there is none. What has a chance of e a row is not seen on any of n rows with a chance of
    (1 - e)^n, which is above 0.025 as long as e < 1 - 0.025^(1/n), or about 3.7 / n. The standard error is such that
    the 95 % interval, by the normal distribution, ends there. It is meant for outcomes between 0 and 1, in which one
    more error costs at most one.

    Source: Clopper and Pearson (1934), at an observed 0; one-sided this is the rule of three, 3 / n.
    """
    most = -math.expm1(math.log(0.025) / num_rows)
    return Estimate(mean=mean, standard_error=most / student_quantile(math.inf, 0.975), degrees_of_freedom=math.inf)


def _seeds_and_rest(values: np.ndarray) -> tuple[tuple[float, float], tuple[float, float]]:
    """What seeds and what the rest add to the variance of the mean of a two-way table, with degrees of freedom."""
    num_seeds, num_rows = values.shape
    by_seed = values.mean(axis=1)
    rest = values - by_seed[:, None] - values.mean(axis=0)[None, :] + values.mean()
    freedom = (num_seeds - 1.0) * (num_rows - 1.0)
    seeds = float(by_seed.var(ddof=1)) / num_seeds
    return (seeds, num_seeds - 1.0), (float((rest**2).sum()) / freedom / values.size, freedom)


def _combine(centre: float, parts: Sequence[tuple[float, float]]) -> Estimate:
    """Independent parts of a variance, each with its degrees of freedom, as one with Satterthwaite's.

    A part may be subtracted; what it is subtracted from must be larger.
    """
    variance = sum(part for part, _ in parts)
    scatter = sum(part**2 / freedom for part, freedom in parts)
    freedom = variance**2 / scatter if scatter > 0 else math.inf
    return Estimate(mean=centre, standard_error=math.sqrt(variance), degrees_of_freedom=freedom)
