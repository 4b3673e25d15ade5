"""Rules of early stopping as a sweep declares them: small comparable values that say when a trial is pruned.

In a sweep file a rule is its name, `asha`, or a mapping with one key, `{asha: {grace_period: 2}}`; `none` trains every
trial to its end.

To add a rule, write one decorated dataclass here; the contract test of all rules runs over it the moment it exists. It
says itself whether a trial is pruned (`prunes`), or which of Ray Tune's trial schedulers follows it (`tune_scheduler`).
Ray is imported by `orchestrator.scheduling.early_stopping` alone, so a rule names the scheduler and its settings.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, Literal, TypeVar

from trainables.faults import FaultsError, unknown_name

NONE = "none"


@dataclass(frozen=True, kw_only=True)
class TuneScheduler:
    """One of Ray Tune's trial schedulers: its class, and the settings other than time, metric and mode."""

    name: Literal["AsyncHyperBandScheduler", "MedianStoppingRule"]
    settings: Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Rule:
    """What a rule is: a frozen keyword-only dataclass of settings with defaults, which holds `faults` and one more."""

    def faults(self) -> list[str]:
        """Every fault of the settings, one sentence each that begins with the setting's name and a colon."""
        raise NotImplementedError(f"rule {type(self).__name__}: must say what is wrong with its settings (faults)")

    def tune_scheduler(self, longest: int) -> TuneScheduler | None:
        """What follows the rule, where Ray Tune does; `longest` is the most epochs of any trial of the task."""
        return None

    def prunes(self, scores: Sequence[float], others: Iterable[Sequence[float]]) -> bool:
        """Whether a trial is pruned after its last epoch so far, where Ray Tune does not say.

        `scores` are the trial's validation scores, an epoch each, and `others` those of the other trials of its task
        and method, as far as they have come; higher is better here, whatever the task's metric.
        """
        raise NotImplementedError(
            f"rule {type(self).__name__}: must say which of Tune's schedulers follows it (tune_scheduler) "
            "or whether a trial is pruned (prunes)"
        )


RULES: dict[str, type[Any]] = {}
Kind = TypeVar("Kind", bound=type[Rule])


def early_stopper(kind: Kind) -> Kind:
    """Make a rule one that sweeps can ask for, by its name in lower case."""
    RULES[kind.__name__.lower()] = kind
    return kind


@early_stopper
@dataclass(frozen=True, kw_only=True)
class Asha(Rule):
    """Asynchronous successive halving (Li et al. 2020).

    After `grace_period` epochs, and at each `reduction_factor`-fold of that, a trial goes on if it is among the best
    1 / `reduction_factor` of those that came so far. From `max_epochs` on it trains to its end; None: nobody is stopped
    later than the longest trial allows.
    """

    grace_period: int = 1
    reduction_factor: float = 3
    max_epochs: int | None = None

    def faults(self) -> list[str]:
        faults = _count_faults("grace_period", self.grace_period)
        factor = self.reduction_factor
        if not _is_number(factor) or not 1 < factor < math.inf:
            faults.append(f"reduction_factor: must be a number > 1, but got {factor!r}")
        if self.max_epochs is not None:
            faults += _count_faults("max_epochs", self.max_epochs)
            if not faults and self.max_epochs < self.grace_period:
                rule = f"must be at least the grace period of {self.grace_period}"
                faults.append(f"max_epochs: {rule}, but got {self.max_epochs}")
        return faults

    def tune_scheduler(self, longest: int) -> TuneScheduler:
        settings = {
            "grace_period": self.grace_period,
            "reduction_factor": self.reduction_factor,
            # A grace period longer than any trial stops nobody.
            "max_t": max(self.grace_period, self.max_epochs or longest),
            "stop_last_trials": False,  # trials end by themselves, with their test scores
        }
        return TuneScheduler(name="AsyncHyperBandScheduler", settings=settings)


@early_stopper
@dataclass(frozen=True, kw_only=True)
class Hyperband(Asha):
    """HyperBand (Li et al. 2018) in its asynchronous form: successive halving that hedges its grace period.

    Each trial falls into one of `brackets` halvings, and is judged within it. The grace period of each is
    `reduction_factor` times that of the one before, for settings that only show late what they are worth. Most trials
    fall into the first, which halves most often.
    """

    brackets: int = 3

    def faults(self) -> list[str]:
        return super().faults() + _count_faults("brackets", self.brackets)

    def tune_scheduler(self, longest: int) -> TuneScheduler:
        halving = super().tune_scheduler(longest)
        return replace(halving, settings={**halving.settings, "brackets": self.brackets})


@early_stopper
@dataclass(frozen=True, kw_only=True)
class Median(Rule):
    """The median rule of Google Vizier (Golovin et al. 2017).

    A trial is pruned where its best score so far is below the median of the other trials' mean scores up to the same
    epoch; not before `grace_period` epochs, and not before `min_trials` others have come as far.
    """

    grace_period: int = 1
    min_trials: int = 3

    def faults(self) -> list[str]:
        return _count_faults("grace_period", self.grace_period) + _count_faults("min_trials", self.min_trials)

    def tune_scheduler(self, longest: int) -> TuneScheduler:
        settings = {
            "grace_period": self.grace_period,
            "min_samples_required": self.min_trials,
            # Never pause a trial for want of others to judge it by: it would begin anew.
            "min_time_slice": math.inf,
        }
        return TuneScheduler(name="MedianStoppingRule", settings=settings)


@early_stopper
@dataclass(frozen=True, kw_only=True)
class Patience(Rule):
    """A trial is pruned once its best score is `num_epochs` epochs old; others have no part in it."""

    num_epochs: int = 3

    def faults(self) -> list[str]:
        return _count_faults("num_epochs", self.num_epochs)

    def prunes(self, scores: Sequence[float], others: Iterable[Sequence[float]]) -> bool:
        earlier, late = scores[: -self.num_epochs], scores[-self.num_epochs :]
        return bool(earlier) and max(late) <= max(earlier)


def parse_rule(value: Any) -> Rule | str:
    """Read a rule, its name, its mapping form, or none ("none", or nothing at all).

    Raises `FaultsError` with every fault of the value.
    """
    if isinstance(value, Rule):
        return _checked(value)
    if value is None or value == NONE:
        return NONE
    if isinstance(value, str):
        value = {value: None}
    if not isinstance(value, Mapping) or len(value) != 1:
        rule = f"must be {NONE}, the name of a rule ({', '.join(RULES)}), or a mapping of one to its settings"
        raise FaultsError("early stopping", [f"{rule}, but got {value!r}"])
    ((name, settings),) = value.items()
    if name not in RULES:
        raise FaultsError("early stopping", [unknown_name("rule of early stopping", name, [NONE, *RULES])])
    kind = RULES[name]
    settings = {} if settings is None else settings
    if not isinstance(settings, Mapping):
        raise FaultsError("early stopping", [f"{name}: must be a mapping of settings, but got {settings!r}"])
    known = [each.name for each in fields(kind)]
    unknown = [unknown_name(f"setting of {name}", key, known) for key in settings if key not in known]
    sound = {key: setting for key, setting in settings.items() if key in known}
    faults = [*unknown, *(f"{name}.{fault}" for fault in kind(**sound).faults())]
    if faults:
        raise FaultsError("early stopping", faults)
    return kind(**sound)


def rule_to_json(rule: Rule | str) -> Any:
    """The form a sweep file has, with every setting."""
    return rule if isinstance(rule, str) else {type(rule).__name__.lower(): asdict(rule)}


def _checked(rule: Rule) -> Rule:
    if faults := rule.faults():
        raise FaultsError("early stopping", [f"{type(rule).__name__.lower()}.{fault}" for fault in faults])
    return rule


def _count_faults(name: str, value: object) -> list[str]:
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        return [f"{name}: must be a whole number >= 1, but got {value!r}"]
    return [] if value < 2**63 else [f"{name}: must be a whole number < 2**63, but got {value!r}"]


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= sys.float_info.max
