"""Early stopping without Ray: what the schedulers say of the scores they are told of."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ray.tune.schedulers import TrialScheduler

from orchestrator.plan import PlannedTrial
from orchestrator.scheduling.early_stopping import SCHEDULERS, trial_scheduler
from orchestrator.scheduling.trial import EPOCH, SCORE
from orchestrator.stopping import NONE, RULES, Asha, Median, Rule
from trainables import metrics
from trainables.config import TrialConfig

CONTINUE, STOP = TrialScheduler.CONTINUE, TrialScheduler.STOP


@dataclass(frozen=True, eq=False)
class TuneTrial:
    """What a scheduler sees of Tune's trials."""

    trial_id: str
    config: Mapping[str, str]


class Judged:
    """A scheduler with trials added to it, told of their scores."""

    def __init__(self, rule: Rule, tasks: Sequence[str], *, per_task: int = 8, num_epochs: int = 9) -> None:
        trials = [planned(f"{task}-{number}", task, num_epochs) for task in tasks for number in range(per_task)]
        scheduler = trial_scheduler(rule, trials)
        assert scheduler is not None
        self.scheduler = scheduler
        # Tune has pending trials, for whose sake the median rule would otherwise pause those it cannot judge.
        self.controller: Any = SimpleNamespace(get_live_trials=lambda: [SimpleNamespace(status="PENDING")])
        ids = [trial.trial_id for trial in trials]
        self.trials = {each: TuneTrial(f"tune-{each}", {"trial_id": each}) for each in ids}
        for trial in self.trials.values():
            self.scheduler.on_trial_add(self.controller, trial)

    def verdict(self, trial_id: str, **result: float) -> str:
        return self.scheduler.on_trial_result(self.controller, self.trials[trial_id], result)

    def score(self, trial_id: str, epoch: int, score: float) -> str:
        return self.verdict(trial_id, **{EPOCH: epoch, SCORE: score})

    def complete(self, trial_id: str, **result: float) -> None:
        self.scheduler.on_trial_complete(self.controller, self.trials[trial_id], result)


def planned(trial_id: str, task: str, num_epochs: int) -> PlannedTrial:
    config = TrialConfig(task=task, backbone="minilm", method="adapter", num_epochs=num_epochs)
    return PlannedTrial(trial_id=trial_id, config_id=trial_id, task=task.rpartition("/")[2], config=config)


A, B = "toy/sentiment", "toy/intent"


def test_every_rule_has_its_scheduler() -> None:
    assert set(SCHEDULERS) == set(RULES.values())


def test_without_a_rule_nothing_judges() -> None:
    assert trial_scheduler(NONE, [planned("t", A, 3)]) is None


def test_successive_halving_lets_the_best_third_of_a_task_go_on() -> None:
    judged = Judged(Asha(), [A])
    assert [judged.score(f"{A}-{n}", 1, score) for n, score in enumerate((0.5, 0.9, 0.6, 0.95, 0.7))] == [
        CONTINUE,  # the first has nobody to be compared with
        CONTINUE,
        STOP,
        CONTINUE,
        STOP,
    ]
    assert judged.score(f"{A}-1", 2, 0.1) == CONTINUE  # between rungs nobody is judged
    assert judged.score(f"{A}-3", 3, 0.9) == CONTINUE
    assert judged.score(f"{A}-1", 3, 0.8) == STOP


def test_tasks_are_judged_apart() -> None:
    judged = Judged(Asha(), [A, B])
    assert [judged.score(f"{A}-{n}", 1, 0.9) for n in range(4)] == [CONTINUE] * 4
    assert judged.score(f"{B}-0", 1, 0.1) == CONTINUE
    assert judged.score(f"{A}-5", 1, 0.1) == STOP


def test_a_grace_period_is_kept_and_none_longer_than_the_trials_is_an_error() -> None:
    judged = Judged(Asha(grace_period=3), [A])
    assert [judged.score(f"{A}-{n}", 2, 1 - n / 10) for n in range(5)] == [CONTINUE] * 5
    judged.score(f"{A}-0", 3, 0.9)
    assert judged.score(f"{A}-1", 3, 0.1) == STOP
    assert Judged(Asha(grace_period=50), [A]).score(f"{A}-0", 3, 0.1) == CONTINUE


def test_nobody_is_stopped_where_it_ends_anyway_or_beyond_max_epochs() -> None:
    judged = Judged(Asha(max_epochs=2), [A])
    for n in range(4):
        judged.score(f"{A}-{n}", 1, 0.9)
    assert [judged.score(f"{A}-{n}", 5, n / 10) for n in range(4)] == [CONTINUE] * 4
    assert judged.score(f"{A}-0", 9, 0.0) == CONTINUE


def test_the_median_rule_stops_who_stays_below_and_pauses_nobody() -> None:
    judged = Judged(Median(min_trials=3), [A])
    assert [judged.score(f"{A}-{n}", 1, 0.8) for n in range(3)] == [CONTINUE] * 3  # too few to judge by
    assert judged.score(f"{A}-3", 1, 0.7) == STOP
    assert judged.score(f"{A}-4", 1, 0.9) == CONTINUE


@pytest.mark.parametrize("rule", [Asha(), Median()])
def test_a_result_without_a_score_is_none_of_its_business(rule: Rule) -> None:
    judged = Judged(rule, [A])
    assert judged.verdict(f"{A}-0") == CONTINUE
    judged.complete(f"{A}-0")
    for n in range(1, 5):
        assert judged.score(f"{A}-{n}", 1, 0.5) == CONTINUE
    judged.complete(f"{A}-1", **{EPOCH: 9, SCORE: 0.9})


def test_a_trial_that_is_started_again_is_judged_anew() -> None:
    judged = Judged(Asha(), [A])
    judged.score(f"{A}-0", 1, 0.5)
    trial = judged.trials[f"{A}-0"]
    judged.scheduler.on_trial_error(judged.controller, trial)
    judged.scheduler.on_trial_add(judged.controller, trial)
    assert judged.score(f"{A}-0", 1, 0.5) == CONTINUE


def test_where_less_is_better_the_lowest_scores_go_on(
    monkeypatch: pytest.MonkeyPatch, task_measured_by: Callable[[str], str]
) -> None:
    error = dataclasses.replace(metrics.get("accuracy"), name="error_rate", mode="min")
    monkeypatch.setitem(metrics.METRICS, "error_rate", error)
    task = task_measured_by("error_rate")
    judged = Judged(Asha(), [task])
    judged.score(f"{task}-0", 1, 0.2)
    assert judged.score(f"{task}-1", 1, 0.5) == STOP
    assert judged.score(f"{task}-2", 1, 0.1) == CONTINUE


@pytest.fixture
def task_measured_by(write_task: Callable[..., Path]) -> Callable[[str], str]:
    def write(metric: str) -> str:
        folder = write_task(f"measured-by-{metric}")
        (folder / "task.json").write_text(f'{{"metric": "{metric}"}}', encoding="utf-8")
        return str(folder)

    return write
