"""Which configuration speaks for a method on a task, and on which split it is reported.

Every table and figure across methods asks here, so that all of them show the same configuration: the one chosen on
validation (`configurations.contenders`), reported on test where the task has test scores.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from orchestrator.analysis.configurations import (
    Configuration,
    SeedSummary,
    contenders,
    group_by,
    higher_is_better,
)
from orchestrator.analysis.missing import missing_pairs
from orchestrator.analysis.text import wording
from orchestrator.spec.backbones import apart


class Method(NamedTuple):
    """A method on a backbone: what tables have a column for and figures a colour."""

    backbone: str
    name: str


@dataclass(frozen=True, kw_only=True)
class Reported:
    """The configuration that speaks for a method on a task."""

    task: str
    method: Method
    configuration: Configuration
    split: str
    score: SeedSummary
    num_configs_tried: int

    @property
    def sign(self) -> int:
        """1 where a higher score is better, -1 where a lower one is."""
        return 1 if higher_is_better(self.configuration.metric) else -1


def splits(configurations: Sequence[Configuration], split: str | None = None) -> dict[str, str]:
    """The split that each task is reported on: `split`, or else test where any of its trials has a test score."""
    tested = {c.task for c in configurations if c.test is not None}
    return {c.task: split or ("test" if c.task in tested else "validation") for c in configurations}


def summary(configuration: Configuration, split: str) -> SeedSummary | None:
    """A configuration's scores on a split."""
    return configuration.test if split == "test" else configuration.validation


def reported(configurations: Sequence[Configuration], split: str | None = None) -> dict[tuple[str, Method], Reported]:
    """By task and method; what has no completed trial, or no score on its split, is left out."""
    split_of = splits(configurations, split)
    found: dict[tuple[str, Method], Reported] = {}
    for (task, backbone, name), group in group_by(configurations, ["task", "backbone", "method"]).items():
        best = contenders(group)
        score = summary(best[0], split_of[task]) if best else None
        if score is not None:
            method = Method(backbone, name)
            found[task, method] = Reported(
                task=task,
                method=method,
                configuration=best[0],
                split=split_of[task],
                score=score,
                num_configs_tried=len(group),
            )
    return found


def tasks_of(configurations: Sequence[Configuration]) -> list[str]:
    """Every task that has a trial, in order."""
    return sorted({c.task for c in configurations})


def methods_of(configurations: Sequence[Configuration]) -> list[Method]:
    """Every method and backbone that have a trial, in order."""
    return sorted({Method(c.backbone, c.method) for c in configurations})


def method_names(methods: Sequence[Method]) -> dict[Method, str]:
    """How each is called: by its name, with the backbone where there are several."""
    backbones = apart(method.backbone for method in methods)
    return {
        method: wording.method({"method": method.name, "backbone": method.backbone}, backbones=backbones)
        for method in methods
    }


def gaps(configurations: Sequence[Configuration], found: Sequence[tuple[str, Method]]) -> list[str]:
    """Sentences for every task and method of the sweep that are not among those found."""
    methods = methods_of(configurations)
    names = method_names(methods)
    present = {(task, names[method]) for task, method in found}
    return missing_pairs(present, tasks_of(configurations), [names[method] for method in methods])
