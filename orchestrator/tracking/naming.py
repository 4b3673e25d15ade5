"""What the runs of a sweep are called: a run's name says only what varies in the sweep."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

from orchestrator.planning.plan import Varied
from orchestrator.record import written
from orchestrator.spec.backbones import apart
from orchestrator.tracking.run_fields import TrialFacts


@dataclass(frozen=True, kw_only=True)
class Naming:
    """What of a trial its run's name mentions.

    A trial is "trec adapter adapter_size=64 seed 0" where a sweep varies all of that, and "trec adapter on minilm ..."
    where it has several backbones. Of a sweep with one task, one method or one seed, that word is left out. Where each
    configuration has a run of its own, "trec adapter adapter_size=64", the names of the trials below it begin with what
    tells them apart: "seed 0 trec adapter ...". Where a task is cut into folds, so is "seed 0 fold 2 trec adapter ...".
    """

    varies_task: bool = True
    varies_method: bool = True
    num_seeds: int | None = None  # None where it is not known
    has_folds: bool = False  # whether any task is cut into folds
    varied: Varied = field(default_factory=dict)  # method -> the options and hyperparameters to mention
    backbones: Mapping[str, str] = field(default_factory=dict)  # what each is called; empty where there is one

    @staticmethod
    def of(spec: Any, varied: Varied | None = None, *, has_folds: bool = False) -> Naming:
        """As the entries `tasks`, `methods` and `seeds` of a spec's JSON have it; what is not there is mentioned."""
        entries = spec if isinstance(spec, dict) else {}
        tasks, methods, seeds = entries.get("tasks"), entries.get("methods"), entries.get("seeds")
        return Naming(
            varies_task=_are_several(tasks),
            varies_method=_are_several({_method(entry) for entry in methods} if methods else None),
            num_seeds=len(seeds) if seeds else None,
            has_folds=has_folds or bool(entries.get("folds")),
            varied=varied or {},
            backbones=apart(backbones_of(entries)),
        )

    @property
    def is_nested(self) -> bool:
        """Whether configurations have runs of their own, with their trials below."""
        return self.num_seeds is not None and (self.num_seeds > 1 or self.has_folds)

    def configuration(self, facts: TrialFacts) -> str:
        """The name of a configuration's run."""
        return self._words(facts) or f"{facts.task} {facts.method}"

    def trial(self, facts: TrialFacts) -> str:
        """The name of a trial's run."""
        parts = [] if self.num_seeds == 1 else [f"seed {facts.seed}"]
        parts += [] if facts.fold is None else [f"fold {facts.fold}"]
        if not parts:
            return self.configuration(facts)
        which, words = " ".join(parts), self._words(facts)
        return (f"{which} {words}" if self.is_nested else f"{words} {which}").strip()

    def _words(self, facts: TrialFacts) -> str:
        """What varies but for seed and fold; nothing where nothing does."""
        words = [facts.task] if self.varies_task else []
        words += [facts.method] if self.varies_method or self.backbones else []
        words += [f"on {self.backbones.get(facts.backbone, facts.backbone)}"] if self.backbones else []
        values = facts.hyperparameters
        words += [f"{name}={written(values[name])}" for name in self.varied.get(facts.method, ()) if name in values]
        return " ".join(words)


def backbones_of(entries: Mapping[str, Any]) -> list[str]:
    """The backbones of a spec's JSON, be it one or several; none where it does not say."""
    named = entries.get("backbone") or []
    return [named] if isinstance(named, str) else list(map(str, named))


def _are_several(names: Collection[str] | None) -> bool:
    return names is None or len(names) > 1


def _method(entry: Any) -> str:
    """The method of an entry of `methods`, which is a mapping from it to its space."""
    return next(iter(entry), "") if isinstance(entry, dict) else str(entry)
