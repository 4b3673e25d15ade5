"""Early stopping without Ray: what the schedulers say of the scores they are told of."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ray.tune.schedulers import TrialScheduler

from orchestrator.record import TrialRecord, TrialStatus
from orchestrator.scheduling.early_stopping import trial_scheduler
from orchestrator.scheduling.trial import EPOCH, SCORE
from orchestrator.spec.early_stopping import NONE, Asha, Hyperband, Median, Patience, Rule
from trainables import metrics
from trainables.outcome import EpochReport

CONTINUE, STOP = TrialScheduler.CONTINUE, TrialScheduler.STOP


@dataclass(frozen=True, eq=False)
class TuneTrial:
    """What a scheduler sees of Tune's trials."""

    trial_id: str
    config: dict[str, Any]


class Judged:
    """A scheduler with trials added to it, told of their scores.

    The trials are called by their task and a number; those of the other methods, by their method too, and those of
    another backbone by that.
    """

    def __init__(
        self,
        rule: Rule,
        tasks: Sequence[str],
        *,
        per_task: int = 8,
        num_epochs: int = 9,
        methods: Sequence[str] = ("adapter",),
        backbones: Sequence[str] = ("minilm",),
        earlier: Sequence[TrialRecord] = (),
        folds: int | None = None,
    ) -> None:
        scheduler = trial_scheduler(rule, dict.fromkeys(tasks, num_epochs))
        assert scheduler is not None
        self.scheduler = scheduler
        self.scheduler.feed(earlier)
        # Tune has pending trials, for whose sake the median rule would otherwise pause those it cannot judge.
        self.controller: Any = SimpleNamespace(get_live_trials=lambda: [SimpleNamespace(status="PENDING")])
        self.trials: dict[str, Any] = {}
        for task, backbone, method, number in itertools.product(tasks, backbones, methods, range(per_task)):
            known = [task, *([method] if method != "adapter" else []), *([backbone] if backbone != "minilm" else [])]
            name = "-".join([*known, str(number)])
            config: dict[str, Any] = {"trial_id": name, "task": task, "backbone": backbone, "method": method}
            config["fold"] = number % folds if folds else None
            self.trials[name] = TuneTrial(f"tune-{name}", config)
        for trial in self.trials.values():
            self.scheduler.on_trial_add(self.controller, trial)

    def verdict(self, trial_id: str, **result: float) -> str:
        return self.scheduler.on_trial_result(self.controller, self.trials[trial_id], result)

    def score(self, trial_id: str, epoch: int, score: float) -> str:
        return self.verdict(trial_id, **{EPOCH: epoch, SCORE: score})

    def complete(self, trial_id: str, **result: float) -> None:
        self.scheduler.on_trial_complete(self.controller, self.trials[trial_id], result)


def recorded(
    trial_id: str, scores: Sequence[float], *, method: str = "adapter", task: str = "toy/sentiment"
) -> TrialRecord:
    """A record of an earlier run; it holds the task's name and not its reference."""
    epochs = tuple(
        EpochReport(epoch=n, step=n, train_loss=1.0, validation_score=score, validation={}, duration_s=1.0)
        for n, score in enumerate(scores, start=1)
    )
    return TrialRecord(
        sweep="s",
        trial_id=trial_id,
        config_id=f"c-{trial_id}",
        task=task,
        backbone="minilm",
        method=method,
        seed=0,
        status=TrialStatus.COMPLETED,
        hyperparameters={},
        validation_score=scores[-1],
        epochs=epochs,
    )


A, B = "toy/sentiment", "toy/intent"


def test_without_a_rule_nothing_judges() -> None:
    assert trial_scheduler(NONE, {A: 3}) is None


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


def test_folds_are_judged_apart_and_beside_their_own_earlier_trials() -> None:
    earlier = [dataclasses.replace(recorded(f"e{n}", [0.9]), fold=1) for n in range(3)]
    judged = Judged(Asha(), [A], earlier=earlier, folds=2)
    assert [judged.score(f"{A}-{n}", 1, score) for n, score in enumerate((0.1, 0.5, 0.05, 0.95))] == [
        CONTINUE,  # the first of fold 0
        STOP,
        STOP,
        CONTINUE,
    ]
    assert "adapter fold 1:" in judged.scheduler.debug_string()


def test_backbones_are_judged_apart_and_beside_their_own_earlier_trials() -> None:
    earlier = [recorded(f"e{n}", [0.9]) for n in range(3)]  # of minilm
    judged = Judged(Asha(), [A], backbones=["minilm", "other"], earlier=earlier)
    assert judged.score(f"{A}-other-0", 1, 0.1) == CONTINUE
    assert judged.score(f"{A}-other-1", 1, 0.05) == STOP
    assert judged.score(f"{A}-0", 1, 0.5) == STOP


def test_methods_are_judged_apart_so_that_none_is_pruned_away() -> None:
    judged = Judged(Asha(), [A], methods=["adapter", "layernorm"])
    assert [judged.score(f"{A}-{n}", 1, 0.9) for n in range(4)] == [CONTINUE] * 4
    assert judged.score(f"{A}-layernorm-0", 1, 0.1) == CONTINUE
    assert judged.score(f"{A}-layernorm-1", 1, 0.05) == STOP


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


def test_patience_prunes_who_has_not_been_better_for_so_many_epochs() -> None:
    judged = Judged(Patience(num_epochs=2), [A])
    for epoch, (score, verdict) in enumerate(
        [(0.5, CONTINUE), (0.4, CONTINUE), (0.6, CONTINUE), (0.6, CONTINUE), (0.59, STOP)], start=1
    ):
        assert judged.score(f"{A}-0", epoch, score) == verdict


@pytest.mark.parametrize("rule", [Asha(), Hyperband(brackets=2), Median()])
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


def test_patience_counts_an_epoch_once_where_its_trial_lost_its_engine() -> None:
    judged = Judged(Patience(num_epochs=2), [A])
    for epoch, score in [(1, 0.5), (2, 0.6), (1, 0.5), (2, 0.6), (3, 0.7)]:  # it began anew after the second
        assert judged.score(f"{A}-0", epoch, score) == CONTINUE


def test_the_median_rule_counts_an_epoch_once_where_its_trial_lost_its_engine() -> None:
    judged = Judged(Median(min_trials=1), [A])
    for epoch, score in [(1, 0.2), (1, 0.2), (1, 0.2), (2, 0.8)]:  # on average 0.5
        assert judged.score(f"{A}-0", epoch, score) == CONTINUE
    judged.score(f"{A}-1", 1, 0.45)
    assert judged.score(f"{A}-1", 2, 0.45) == STOP


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


@pytest.mark.parametrize("rule", [Asha(), Hyperband(brackets=1), Median(min_trials=3)])
def test_records_of_an_earlier_run_are_what_new_trials_are_judged_against(rule: Rule) -> None:
    earlier = [recorded(f"e{n}", [0.8, 0.8 + n / 100, 0.9]) for n in range(3)]
    assert Judged(rule, [A]).score(f"{A}-0", 1, 0.5) == CONTINUE
    judged = Judged(rule, [A], methods=["adapter", "layernorm"], earlier=earlier)
    assert judged.score(f"{A}-0", 1, 0.5) == STOP
    assert judged.score(f"{A}-1", 1, 0.95) == CONTINUE
    assert judged.score(f"{A}-1", 2, 0.95) == CONTINUE
    assert judged.score(f"{A}-1", 3, 0.1) == (STOP if isinstance(rule, Asha) else CONTINUE)
    assert judged.score(f"{A}-layernorm-0", 1, 0.1) == CONTINUE


def test_earlier_records_are_found_by_the_task_s_name_wherever_it_lies_today(
    task_measured_by: Callable[[str], str],
) -> None:
    folder = task_measured_by("accuracy")
    earlier = [recorded(f"e{n}", [0.8], task=Path(folder).name) for n in range(3)]
    assert Judged(Asha(), [folder], earlier=earlier).score(f"{folder}-0", 1, 0.5) == STOP


def test_every_rung_that_an_earlier_trial_reached_holds_its_score_even_if_today_it_would_be_stopped_before() -> None:
    earlier = [recorded("good", [0.9]), recorded("late", [0.1] * 8 + [0.95])]
    judged = Judged(Asha(), [A], earlier=earlier)
    for epoch in (1, 3):
        assert judged.score(f"{A}-0", epoch, 0.99) == CONTINUE
    assert judged.score(f"{A}-0", 9, 0.94) == STOP


def test_a_trial_that_was_stopped_or_withdrawn_leaves_nothing_but_its_scores() -> None:
    judged = Judged(Asha(), [A], per_task=4)
    judged.score(f"{A}-0", 1, 0.9)
    assert judged.score(f"{A}-1", 1, 0.1) == STOP
    judged.complete(f"{A}-1", **{EPOCH: 1, SCORE: 0.1})  # as Tune tells it after the verdict
    judged.complete(f"{A}-0", **{EPOCH: 9, SCORE: 0.9})
    for n in (2, 3):
        judged.scheduler.on_trial_remove(judged.controller, judged.trials[f"{A}-{n}"])
    ((_, judge),) = judged.scheduler._judges.items()
    assert judge._trial_info == {}  # type: ignore[attr-defined]


class TestHyperband:
    def test_brackets_differ_in_their_grace_period_and_judge_apart(self) -> None:
        def stopped_at(trial: int, judged: Judged) -> int | None:
            verdicts = (judged.score(f"{A}-{trial}", epoch, 0.1) for epoch in range(1, 10))
            return next((epoch for epoch, verdict in enumerate(verdicts, start=1) if verdict == STOP), None)

        judged = Judged(Hyperband(brackets=3), [A], per_task=60)
        for n in range(30):  # whoever comes first in a bracket is never stopped
            for epoch in range(1, 10):
                judged.score(f"{A}-{n}", epoch, 0.9)
        stops = [stopped_at(n, judged) for n in range(30, 60)]
        assert set(stops) == {1, 3, 9}
        assert stops.count(1) > stops.count(3) > 0

    def test_a_trial_falls_into_the_same_bracket_in_every_run(self) -> None:
        def brackets() -> list[int]:
            judged = Judged(Hyperband(brackets=3), [A], per_task=30)
            ((_, judge),) = judged.scheduler._judges.items()
            halvings = judge._brackets  # type: ignore[attr-defined]
            return [halvings.index(bracket) for bracket in judge._trial_info.values()]  # type: ignore[attr-defined]

        assert brackets() == brackets()
        assert set(brackets()) == {0, 1, 2}

    def test_more_brackets_than_the_trials_have_epochs_for_stop_nobody(self) -> None:
        judged = Judged(Hyperband(brackets=9), [A], num_epochs=1, per_task=40)
        assert CONTINUE in {judged.score(f"{A}-{n}", 1, 1 - n / 40) for n in range(1, 40)}


@pytest.fixture
def task_measured_by(write_task: Callable[..., Path]) -> Callable[[str], str]:
    def write(metric: str) -> str:
        folder = write_task(f"measured-by-{metric}")
        (folder / "task.json").write_text(f'{{"metric": "{metric}"}}', encoding="utf-8")
        return str(folder)

    return write
