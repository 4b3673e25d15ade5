"""What to ship: of the configurations that are as good as the best, the cheapest, with the reason in words."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from orchestrator.analysis import replicates
from orchestrator.analysis.arguments import is_number, is_whole, name_faults
from orchestrator.analysis.configurations import (
    C,
    Configuration,
    Scored,
    SeedSummary,
    contenders,
    higher_is_better,
    size_rank,
)
from orchestrator.analysis.row_outcomes import KeptRows
from orchestrator.analysis.statistics.intervals import Estimate
from orchestrator.analysis.statistics.non_inferiority import non_inferiority_of
from orchestrator.analysis.statistics.selection import selection_stability
from orchestrator.analysis.text import wording
from orchestrator.spec.backbones import apart

# Replicates are drawn again so many times to see how often the recommended configuration is recommended.
RESAMPLES = 200
_ROUNDING = 1e-12  # what a difference of two scores may be off by


def _seconds_rank(configuration: Configuration) -> float:
    """Orders by engine-seconds a trial, an unknown number last."""
    return math.inf if configuration.seconds_per_trial is None else configuration.seconds_per_trial


PREFERENCES: dict[str, Callable[[Any], float]] = {"params": size_rank, "seconds": _seconds_rank}
_CHEAPER = {"params": "smaller", "seconds": "faster"}


@dataclass(frozen=True, kw_only=True)
class Wish:
    """What is asked of a recommendation."""

    within: float | None = None  # of the best score on validation, in the metric's unit; None: one standard error
    max_params: int | None = None  # trained, the head included
    prefer: str = "params"

    def faults(self) -> list[str]:
        """Every fault of it, a sentence each."""
        faults = []
        if self.within is not None and not (is_number(self.within) and 0 <= self.within < math.inf):
            faults.append(f"within: must be a number >= 0 in the metric's unit, such as 0.01, but got {self.within!r}")
        if self.max_params is not None and not (is_whole(self.max_params) and self.max_params > 0):
            faults.append(f"max_params: must be a whole number > 0 and below 1e308, but got {self.max_params!r}")
        faults += [f"prefer: {fault}" for fault in name_faults("preference", self.prefer, PREFERENCES)]
        return faults


@dataclass(frozen=True, kw_only=True)
class Difference:
    """How far one configuration is from another on a split; positive is better."""

    estimate: Estimate
    split: str
    over: str  # what its interval covers


@dataclass(frozen=True, kw_only=True)
class Recommendation:
    """The choice for one task."""

    chosen: Configuration | None  # None where nothing that was tried is as asked
    best: Configuration  # of all that were tried
    difference: Difference | None  # of the chosen one to the best
    share_kept: float | None  # of resamples of the replicates that choose the same; None with one
    why: str

    def row(self) -> dict[str, Any]:
        low, high = self.difference.estimate.interval() if self.difference else (None, None)
        return {
            "difference": self.difference and self.difference.estimate.mean,
            "difference_low": low,
            "difference_high": high,
            "difference_over": self.difference and self.difference.over,
            "share_kept": self.share_kept,
            "why": self.why,
        }


def reported_splits(group: Sequence[Configuration], wish: Wish) -> list[tuple[Configuration, str]]:
    """Of which configurations of a task, and of which split of each, a recommendation says how sure it is."""
    tried = contenders(group)
    fitting = _fitting(tried, wish)
    if not fitting:
        return []
    chosen, best = cheapest_as_good(fitting, wish), tried[0]
    own = [(chosen, "test")] if chosen.test else []
    return own if chosen is best else [*own, *((c, _split(chosen, best)) for c in (chosen, best))]


def recommend(group: Sequence[Configuration], wish: Wish, kept: KeptRows) -> Recommendation | None:
    """Choose among the configurations of one task; None where nothing is completed."""
    tried = contenders(group)
    if not tried:
        return None
    fitting = _fitting(tried, wish)
    if not fitting:
        smallest = min(tried, key=size_rank).trained_params
        known = "how many they have is not recorded" if smallest is None else f"the smallest has {smallest:,}"
        among = wording.plural(len(tried), "configuration")
        why = f"None of {among} has at most {wish.max_params:,.0f} trained parameters; {known}."
        return Recommendation(chosen=None, best=tried[0], difference=None, share_kept=None, why=why)
    chosen = cheapest_as_good(fitting, wish)
    difference = _difference(chosen, tried[0], kept)
    share = _share_kept(fitting, fitting.index(chosen), wish)
    backbones = apart(sorted({c.backbone for c in group}))
    why = " ".join(_reasons(chosen, fitting, backbones, difference, share, wish))
    return Recommendation(chosen=chosen, best=tried[0], difference=difference, share_kept=share, why=why)


def _fitting(tried: Sequence[Configuration], wish: Wish) -> list[Configuration]:
    return [c for c in tried if wish.max_params is None or size_rank(c) <= wish.max_params]


def cheapest_as_good(candidates: Sequence[C], wish: Wish) -> C:
    """Of contenders, best first, the cheapest that is as good as the first on validation."""
    best = _validation(candidates[0])
    tolerance = best.sem if wish.within is None else wish.within
    if tolerance is None:
        return candidates[0]
    # Nobody is better than the best, so the distance needs no direction. 0.90 less 0.89 is a little over 0.01.
    as_good = [c for c in candidates if abs(_validation(c).mean - best.mean) <= tolerance + _ROUNDING]
    return min(as_good, key=PREFERENCES[wish.prefer])  # of equal costs the first, which is the better one


def _share_kept(candidates: Sequence[Configuration], chosen: int, wish: Wish) -> float | None:
    """How often the same rule, on replicates drawn again, recommends the same configuration."""
    sign = 1.0 if higher_is_better(candidates[0].metric) else -1.0
    scores = sign * np.array([_validation(c).scores for c in candidates])
    num_seeds = scores.shape[1]
    if num_seeds < 2:
        return None
    costs = np.array([PREFERENCES[wish.prefer](c) for c in candidates])

    def choose(drawn: np.ndarray) -> np.ndarray:
        means = drawn.mean(axis=2)
        best = means.argmax(axis=1)
        if wish.within is None:
            winners = np.take_along_axis(drawn, best[:, None, None], axis=1)[:, 0]
            tolerance = winners.std(axis=1, ddof=1, keepdims=True) / math.sqrt(num_seeds)
        else:
            tolerance = np.full((len(drawn), 1), wish.within)
        as_good = means >= means.max(axis=1, keepdims=True) - tolerance - _ROUNDING
        price = np.where(as_good, costs, np.inf)
        cheapest = as_good & (price == price.min(axis=1, keepdims=True))
        return np.asarray(np.where(cheapest, means, -np.inf).argmax(axis=1))

    shares = selection_stability(scores, rng=np.random.default_rng(0), choose=choose, num_resamples=RESAMPLES)
    return float(shares[chosen])


def _split(chosen: Configuration, best: Configuration) -> str:
    """What both are reported on: test, or validation where one of them has no test scores."""
    return "test" if chosen.test and best.test else "validation"


def _difference(chosen: Configuration, best: Configuration, kept: KeptRows) -> Difference | None:
    """None of the best itself, or with one seed."""
    if chosen is best:
        return None
    sign, split = 1.0 if higher_is_better(best.metric) else -1.0, _split(chosen, best)
    found, over = replicates.difference(getattr(chosen, split), getattr(best, split), sign)
    if found is None:
        return None
    on_rows = kept.compare([(chosen, 1.0)], [(best, 1.0)], split)
    estimate = on_rows and on_rows.estimate()
    if not estimate:
        return Difference(estimate=found, split=split, over=over)
    over = replicates.with_rows(on_rows.folds if on_rows else None)
    return Difference(estimate=replace(estimate, mean=found.mean), split=split, over=over)


def _reasons(
    chosen: Configuration,
    fitting: Sequence[Configuration],
    backbones: Mapping[str, str],
    difference: Difference | None,
    share: float | None,
    wish: Wish,
) -> list[str]:
    own, best = _validation(chosen), _validation(fitting[0])
    among = wording.plural(len(fitting), "configuration")
    if wish.max_params is not None:
        among += f" with at most {wish.max_params:,.0f} trained parameters"
    score, cheaper = wording.score(own.mean, own.sem), _CHEAPER[wish.prefer]
    reach = "one standard error" if wish.within is None else f"{wish.within:g}"
    if chosen is fitting[0]:
        which = "The best of" if len(fitting) > 1 else "The only one of"
        sentences = [f"{which} {among} on validation ({score})."]
        if own.sem is None and wish.within is None:
            sentences.append(f"With one seed its uncertainty is unknown, so nothing {cheaper} counts as good as it.")
        elif len(fitting) > 1:
            sentences.append(f"Nothing {cheaper} is within {reach} of it.")
    else:
        gap = wording.score(abs(best.mean - own.mean))
        error = f" ({wording.score(best.sem)})" if wish.within is None else ""
        other = _called(fitting[0], chosen, backbones)
        sentences = [
            f"The {'smallest' if wish.prefer == 'params' else 'fastest'} of {among} within {reach}{error} of the best "
            f"on validation: {score}, {gap} from the {wording.score(best.mean)} of {other}"
            f"{_saving(chosen, fitting[0], wish)}."
        ]
    if difference is not None:
        sentences.append(_reported(difference, wish))
    if share is not None:
        drawn = "Seeds" if own.num_folds is None else "Folds"
        sentences.append(f"{drawn} drawn again recommend the same configuration {100 * share:.0f} % of the time.")
    return sentences


def _reported(difference: Difference, wish: Wish) -> str:
    estimate = difference.estimate
    low, high = estimate.interval()
    sentence = (
        f"On {difference.split} it differs from the best of all by {wording.signed(estimate.mean)}, with a 95 % "
        f"interval over {difference.over} from {wording.signed(low)} to {wording.signed(high)}"
    )
    if not wish.within:
        return sentence + "."
    judged = non_inferiority_of(estimate.mean, estimate.standard_error, estimate.degrees_of_freedom, wish.within)
    shown = "shows" if judged.holds else "does not show"
    return f"{sentence}, which {shown} with 95 % confidence that it is less than {wish.within:g} worse."


def _called(other: Configuration, chosen: Configuration, backbones: Mapping[str, str]) -> str:
    if other.backbone != chosen.backbone:
        return f"{other.method} on {backbones[other.backbone]}"
    return f"another {other.method}" if other.method == chosen.method else other.method


def _saving(chosen: Configuration, best: Configuration, wish: Wish) -> str:
    """What the chosen one costs beside the best, where both are known."""
    if wish.prefer == "seconds":
        own, other = chosen.seconds_per_trial, best.seconds_per_trial
        if own is None or other is None:
            return ""
        return f", in {wording.duration(own)} of training instead of {wording.duration(other)}"
    part = wording.share(chosen.trained_params, best.trained_params)
    saving = "" if part == wording.UNKNOWN else f", with {part} of its trained parameters"
    whole = wording.share(chosen.total_params, best.total_params)
    if chosen.backbone == best.backbone or whole == wording.UNKNOWN:
        return saving
    return f"{saving} and {whole} of all its parameters, which are what using it costs"


def _validation(configuration: Scored) -> SeedSummary:
    assert configuration.validation is not None  # contenders have one
    return configuration.validation
