"""Trials with the seconds of their parts, as a simulation of engines takes them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from orchestrator.estimate.expected_epochs import expected_epochs, has_expectation
from orchestrator.estimate.makespan import Load
from orchestrator.planning.plan import PlannedTrial
from orchestrator.spec.early_stopping import Rule
from trainables.estimate.throughput import Timing

if TYPE_CHECKING:
    from trainables.estimate.throughput import TrialWork

# Taking up a task that is tokenised already, where that was not measured.
TASK_S = 0.2
# Changing to another backbone, whatever its size.
CHANGE_S = 0.5
# Building the model of a trial and joining it to a pack.
JOIN_S = 0.05


@dataclass(frozen=True, kw_only=True)
class TimedTrials:
    """The trials of a sweep in their order, with lists of equal lengths of what is known of each.

    Args:
        kinds: names of their tasks, by which an engine knows whether it has taken one up.
        backbones: what an engine must have loaded for each, if anything.
        timings: seconds of their parts on an engine.
        works: how much they do.
        limits: the most trials that a pack of theirs may hold.
        task_s: until an engine took up a task, by its name; `TASK_S` where it was not measured.
        change_s: what changing to a backbone takes, by its name; `CHANGE_S` where its size is not known.
        trained: the epochs that a trial trained, by its place; only of those that have ended already.
    """

    trials: Sequence[PlannedTrial]
    kinds: Sequence[str]
    backbones: Sequence[str]
    timings: Sequence[Timing]
    works: Sequence[TrialWork]
    limits: Sequence[int]
    task_s: Mapping[str, float] = field(default_factory=dict)
    change_s: Mapping[str, float] = field(default_factory=dict)
    trained: Mapping[int, int] = field(default_factory=dict)

    @property
    def most_epochs(self) -> list[int]:
        """Of each trial, if early stopping stops none of those that have not ended already."""
        return self._as_known([trial.config.num_epochs for trial in self.trials])

    def loads(self, epochs: Sequence[int], *, slower: float = 1.0) -> list[Load]:
        """What each asks of an engine if it trains so many epochs, and all take `slower` times as long as timed."""
        return [self._load(place, trained, slower) for place, trained in enumerate(epochs)]

    def drawn_epochs(self, rule: Rule | str, rng: np.random.Generator, draws: int) -> list[list[int]]:
        """The epochs of each trial, for some orders of their scores; none where the rule leaves no expectation."""
        if not has_expectation(rule):
            return []
        most = [trial.config.num_epochs for trial in self.trials]
        groups: dict[tuple[str, str, str, int | None], list[int]] = defaultdict(list)
        longest: dict[str, int] = defaultdict(int)
        for place, trial in enumerate(self.trials):
            config = trial.config
            groups[config.task, config.backbone, config.method, config.fold].append(place)
            longest[trial.config.task] = max(longest[trial.config.task], most[place])
        drawn = []
        for _ in range(draws):
            epochs = list(most)
            for (task, *_), places in groups.items():
                trained = expected_epochs(rule, [most[place] for place in places], longest[task], rng)
                for place, count in zip(places, trained, strict=True):
                    epochs[place] = count
            drawn.append(self._as_known(epochs))
        return drawn

    def _as_known(self, epochs: list[int]) -> list[int]:
        return [self.trained.get(place, count) for place, count in enumerate(epochs)]

    def _load(self, place: int, epochs: int, slower: float) -> Load:
        """One trial that trains so many of its epochs; it is tested if those are all."""
        work, timing = self.works[place], self.timings[place]
        kind, backbone = self.kinds[place], self.backbones[place]
        is_whole = epochs == work.num_epochs
        once = [(kind, self.task_s.get(kind, TASK_S))]
        if work.once_key is not None:
            once.append((work.once_key, timing.once_s * slower))
        return Load(
            key=self.trials[place].pack_key,
            num_steps=max(1.0, work.num_steps * epochs / work.num_epochs),
            fixed_s=timing.fixed_s * slower,
            trial_s=timing.trial_s * slower,
            own_s=JOIN_S + (epochs * timing.evaluation_s + (timing.test_s if is_whole else 0)) * slower,
            limit=self.limits[place],
            once=tuple(once),
            backbone=backbone,
            load_s=self.change_s.get(backbone, CHANGE_S),
        )
