"""What a rule of early stopping must do, whichever it is. Every entry of RULES is tested the moment it exists."""

from __future__ import annotations

import dataclasses
import json
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from ray.tune.schedulers import TrialScheduler

from orchestrator.estimate.expected_epochs import expected_epochs
from orchestrator.record import TrialRecord, TrialStatus
from orchestrator.scheduling.early_stopping import trial_scheduler
from orchestrator.scheduling.trial import EPOCH, SCORE
from orchestrator.spec.early_stopping import RULES, Rule, parse_rule, rule_to_json
from trainables import metrics
from trainables.faults import FaultsError
from trainables.outcome import EpochReport

NUM_TRIALS, NUM_EPOCHS = 12, 9
TASKS = ("toy/sentiment", "toy/intent")


@pytest.fixture(params=RULES)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def rule(name: str) -> Rule:
    return RULES[name]()


def curves(seed: int = 0) -> np.ndarray:
    """Scores (trials, epochs) of which some rise, some stand still and some fall."""
    rng = np.random.default_rng(seed)
    slopes = rng.choice([-0.05, 0.0, 0.05], size=(NUM_TRIALS, 1))
    return 0.5 + slopes * np.arange(NUM_EPOCHS) + rng.normal(0, 0.02, size=(NUM_TRIALS, NUM_EPOCHS))


class Sweep:
    """Trials of a task and method that are trained epoch by epoch, in turn, as a scheduler lets them."""

    def __init__(self, rule: Rule, earlier: list[TrialRecord] | None = None) -> None:
        scheduler = trial_scheduler(rule, dict.fromkeys(TASKS, NUM_EPOCHS))
        assert scheduler is not None
        self.scheduler = scheduler
        self.scheduler.feed(earlier or [])
        self.controller: Any = SimpleNamespace(get_live_trials=lambda: [SimpleNamespace(status="PENDING")])

    def add(self, name: str, task: str = TASKS[0], method: str = "adapter") -> Any:
        config = {"trial_id": name, "task": task, "backbone": "minilm", "method": method, "fold": None}
        trial = SimpleNamespace(trial_id=f"tune-{name}", config=config)
        self.scheduler.on_trial_add(self.controller, trial)
        return trial

    def say(self, trial: Any, **result: float) -> str:
        verdict = self.scheduler.on_trial_result(self.controller, trial, result)
        assert verdict in (TrialScheduler.CONTINUE, TrialScheduler.STOP)  # one that is paused would begin anew
        return verdict

    def train(self, scores: np.ndarray, task: str = TASKS[0], method: str = "adapter") -> list[int]:
        """How many epochs each trial trains."""
        going = {number: self.add(f"{task}-{method}-{number}", task, method) for number in range(len(scores))}
        trained = [0] * len(scores)
        for epoch in range(scores.shape[1]):
            for number, trial in list(going.items()):
                trained[number] = epoch + 1
                result = {EPOCH: epoch + 1, SCORE: float(scores[number, epoch])}
                if self.say(trial, **result) == TrialScheduler.STOP or epoch + 1 == scores.shape[1]:
                    self.scheduler.on_trial_complete(self.controller, trial, result)
                    del going[number]
        return trained


class TestSettings:
    def test_they_are_frozen_plain_values_with_sound_defaults_that_survive_json(self, name: str, rule: Rule) -> None:
        assert rule.faults() == []
        assert parse_rule(name) == parse_rule({name: None}) == parse_rule(rule) == rule
        values = json.loads(json.dumps(rule_to_json(rule)))
        assert list(values) == [name]
        assert parse_rule(values) == rule
        assert hash(parse_rule(values)) == hash(rule)
        for setting in values[name]:
            with pytest.raises(dataclasses.FrozenInstanceError):
                setattr(rule, setting, 1)

    def test_every_wrong_value_is_refused_at_once_and_by_name(self, name: str, rule: Rule) -> None:
        wrong: dict[str, Any] = {field.name: "some text" for field in dataclasses.fields(RULES[name])}
        with pytest.raises(FaultsError) as refusal:
            parse_rule({name: {**wrong, "no_such_setting": 1}})
        assert len(refusal.value.faults) == len(wrong) + 1
        assert f"unknown setting of {name} 'no_such_setting'" in refusal.value.faults[0]
        for setting in wrong:
            assert any(fault.startswith(f"{name}.{setting}: must be") for fault in refusal.value.faults), setting


class TestJudging:
    def test_trials_are_let_go_on_or_stopped_and_the_same_scores_have_the_same_end(self, rule: Rule) -> None:
        trained = Sweep(rule).train(curves())
        assert Sweep(rule).train(curves()) == trained
        assert max(trained) == NUM_EPOCHS  # somebody may train to the end
        assert any(min(Sweep(rule).train(curves(seed))) < NUM_EPOCHS for seed in range(20)), "it never stops anybody"

    def test_who_is_alone_and_gets_better_is_never_stopped(self, rule: Rule) -> None:
        assert Sweep(rule).train(np.linspace(0.9, 0.99, NUM_EPOCHS)[None]) == [NUM_EPOCHS]

    def test_tasks_and_methods_are_judged_apart(self, rule: Rule) -> None:
        sweep = Sweep(rule)
        alone = Sweep(rule).train(curves())
        assert sweep.train(curves(), TASKS[0], "adapter") == alone
        assert sweep.train(0.1 * curves(), TASKS[1], "adapter") == Sweep(rule).train(0.1 * curves(), TASKS[1])
        assert sweep.train(0.1 * curves(), TASKS[0], "lora") == Sweep(rule).train(0.1 * curves(), method="lora")

    def test_where_less_is_better_it_judges_the_other_way_round(
        self, rule: Rule, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        trained = Sweep(rule).train(curves())
        for name, metric in list(metrics.METRICS.items()):
            monkeypatch.setitem(metrics.METRICS, name, dataclasses.replace(metric, mode="min"))
        assert Sweep(rule).train(-curves()) == trained

    def test_a_result_without_a_score_is_none_of_its_business(self, rule: Rule) -> None:
        sweep = Sweep(rule)
        trial = sweep.add("0")
        assert sweep.say(trial) == TrialScheduler.CONTINUE
        sweep.scheduler.on_trial_complete(sweep.controller, trial, {})
        sweep.scheduler.on_trial_remove(sweep.controller, sweep.add("1"))
        assert sweep.scheduler.debug_string()

    def test_a_trial_that_is_started_again_is_judged_anew(self, rule: Rule) -> None:
        sweep = Sweep(rule)
        trial = sweep.add("0")
        for epoch in (1, 2):
            sweep.say(trial, **{EPOCH: epoch, SCORE: 0.9 - epoch / 10})
        sweep.scheduler.on_trial_error(sweep.controller, trial)
        assert sweep.train(np.linspace(0.9, 0.99, NUM_EPOCHS)[None]) == [NUM_EPOCHS]  # it bears the same name

    def test_it_takes_in_the_records_of_an_earlier_run(self, rule: Rule) -> None:
        def record(number: int, scores: np.ndarray) -> TrialRecord:
            epochs = tuple(
                EpochReport(epoch=n, step=n, train_loss=1.0, validation_score=score, validation={}, duration_s=1.0)
                for n, score in enumerate(scores.tolist(), start=1)
            )
            return TrialRecord(
                sweep="s",
                trial_id=f"earlier-{number}",
                config_id=f"c-{number}",
                task="toy/sentiment",
                backbone="minilm",
                method="adapter",
                seed=0,
                status=TrialStatus.COMPLETED,
                hyperparameters={},
                validation_score=float(scores[-1]),
                epochs=epochs,
            )

        earlier = [record(number, scores) for number, scores in enumerate(curves(1))]
        trained = Sweep(rule, earlier).train(curves())
        assert trained == Sweep(rule, earlier).train(curves())
        assert all(1 <= epochs <= NUM_EPOCHS for epochs in trained)


def test_the_epochs_that_are_expected_are_none_that_cannot_be(rule: Rule) -> None:
    expected = expected_epochs(rule, [3, 5, 9, 9], 9, np.random.default_rng(0))
    assert all(1 <= found <= most for found, most in zip(expected, [3, 5, 9, 9], strict=True))


def test_a_rule_that_says_of_nobody_that_he_is_pruned_is_named() -> None:
    @dataclasses.dataclass(frozen=True, kw_only=True)
    class Forgetful(Rule):
        def faults(self) -> list[str]:
            return []

    with pytest.raises(NotImplementedError, match=r"rule Forgetful: must say which of Tune's .* or whether"):
        Sweep(Forgetful()).train(curves())
