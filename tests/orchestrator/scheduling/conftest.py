"""What the tests of adaptive search share: spaces, a driver without training, and a spy on what Optuna is told."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pytest
from ray.tune.search.optuna import OptunaSearch

from orchestrator.planning.plan import PlannedTrial, SweepPlan, planned_from_table, trials_table
from orchestrator.record import TrialRecord, TrialStatus
from orchestrator.scheduling.search import adaptive_trials
from tests.factories import trial_record

Values = dict[str, Any]
Score = Callable[[PlannedTrial], float | None]


@pytest.fixture
def smooth(values: Values) -> Values:
    """One task-method pair over two numbers, on which `height` is a hill."""
    values["space"] = {"max_length": 16, "num_epochs": 2}
    space = {"learning_rate": {"loguniform": [1e-5, 1e-1]}, "weight_decay": {"uniform": [0, 1]}}
    return {
        **values,
        "seeds": [0],
        "methods": [{"layernorm": space}],
        "search": {"algorithm": "tpe", "num_samples": 30},
    }


@pytest.fixture
def finite(values: Values) -> Values:
    """Two task-method pairs of six points each, three seeds."""
    space = {"learning_rate": {"grid": [1e-4, 1e-3, 1e-2]}, "weight_decay": {"choice": [0, 0.1]}}
    search = {"algorithm": "tpe", "num_samples": 4}
    values["space"] = {"max_length": 16, **space}
    return {**values, "seeds": [0, 1, 2], "methods": ["layernorm", {"adapter": {"adapter_size": 2}}], "search": search}


def record(trial: PlannedTrial, score: float | None, status: TrialStatus = TrialStatus.COMPLETED) -> TrialRecord:
    return trial_record(trial, status, validation_score=score)


class Sweep:
    """What a driver does with a source, and what its store holds afterwards."""

    def __init__(self, plan: SweepPlan, before: Sweep | None = None, *, without: Sequence[str] = ()) -> None:
        self.planned: list[PlannedTrial] = list(before.planned) if before else []
        self.records = [each for each in before.records if each.trial_id not in without] if before else []
        self.began: list[PlannedTrial] = []
        self.under_way: deque[PlannedTrial] = deque()
        earlier = planned_from_table(trials_table("small", self.planned))
        self.source = adaptive_trials(plan, earlier, tuple(self.records), self.note)

    def note(self, trials: Sequence[PlannedTrial]) -> None:
        noted = {trial.trial_id for trial in self.planned}
        assert not noted & {trial.trial_id for trial in trials}
        self.planned += trials

    def train(self, score: Score, *, at_once: int = 1, most: int | None = None) -> Sweep:
        """Train what is supplied, in the order in which it comes, up to so many trials."""
        while True:
            while (
                len(self.under_way) < at_once
                and (most is None or len(self.began) < most)
                and (trial := self.source.next()) is not None
            ):
                assert trial in self.planned
                self.began.append(trial)
                self.under_way.append(trial)
            if not self.under_way:
                return self
            self.end(self.under_way.popleft(), score)

    def end(self, trial: PlannedTrial, score: Score) -> None:
        reached = score(trial)
        status = TrialStatus.FAILED if reached is None else TrialStatus.COMPLETED
        ended = record(trial, reached, status)
        self.source.ended(ended)
        self.records.append(ended)

    @property
    def configurations(self) -> list[str]:
        return list(dict.fromkeys(trial.config_id for trial in self.began))


class Told(list[tuple[Mapping[str, Any] | None, bool]]):
    """Every result, or None, that OptunaSearch was told for a point, and whether it was told of an error."""

    @property
    def scores(self) -> list[float]:
        return [result["score"] for result, _ in self if result is not None]


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> Told:
    """Everything that OptunaSearch is told of the worth of points."""
    calls = Told()
    complete = OptunaSearch.on_trial_complete

    def spy(self: OptunaSearch, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        calls.append((result, error))
        complete(self, trial_id, result, error)

    monkeypatch.setattr(OptunaSearch, "on_trial_complete", spy)
    return calls


@pytest.fixture
def height() -> Score:
    """At most 0, at a learning rate of 10 ** -3.4 and a weight decay of 0.7."""

    def measure(trial: PlannedTrial) -> float:
        return -((math.log10(trial.config.learning_rate) + 3.4) ** 2) - 4 * (trial.config.weight_decay - 0.7) ** 2

    return measure


@pytest.fixture
def recorded() -> Callable[..., TrialRecord]:
    return record


@pytest.fixture
def driven() -> type[Sweep]:
    """What drives a source: `driven(plan)` a new sweep, `driven(plan, before)` one that goes on."""
    return Sweep
