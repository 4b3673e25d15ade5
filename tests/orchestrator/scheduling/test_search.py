"""Adaptive search without training: the tests hand in what a driver would, records of made-up scores."""

from __future__ import annotations

import dataclasses
import math
import pickle
import statistics
import threading
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from orchestrator.planning.plan import PlannedTrial, plan_sweep
from orchestrator.record import TrialStatus
from orchestrator.scheduling.samplers import Searcher
from orchestrator.scheduling.search import PATIENCE, AdaptiveTrials, _Course, adaptive_trials
from orchestrator.trial_source import UNKNOWN
from trainables import metrics

Values = dict[str, Any]
Score = Callable[[PlannedTrial], float | None]


class TestFinding:
    @pytest.mark.parametrize(("algorithm", "samples", "seeds"), [("tpe", 30, 4), ("cmaes", 30, 4), ("gp", 8, 2)])
    @pytest.mark.thorough
    def test_it_beats_chance_by_far_on_a_hill(
        self, smooth: Values, algorithm: str, samples: int, seeds: int, driven: Any, height: Any
    ) -> None:
        """Of the distance to the top that chance leaves, as a mean over seeds, it leaves less than half."""
        found, by_chance = [], []
        for seed in range(seeds):
            smooth["search"] = {"algorithm": algorithm, "num_samples": samples, "seed": seed}
            plan = plan_sweep(smooth)
            by_chance.append(max(map(height, plan.sample_trials())))
            found.append(max(map(height, driven(plan).train(height, at_once=1 if algorithm == "gp" else 3).began)))
        assert statistics.fmean(found) > statistics.fmean(by_chance) / 2

    def test_where_less_is_better_it_looks_for_less(
        self, smooth: Values, monkeypatch: pytest.MonkeyPatch, driven: Any, height: Any
    ) -> None:
        accuracy = metrics.get("accuracy")
        monkeypatch.setitem(metrics.METRICS, "accuracy", dataclasses.replace(accuracy, mode="min"))
        trials = driven(plan_sweep(smooth)).train(lambda trial: -height(trial)).began
        late = statistics.fmean(map(height, trials[-10:]))
        assert late > statistics.fmean(map(height, trials[:10]))

    def test_nsga2_weighs_the_score_against_the_trained_parameters(
        self, smooth: Values, told: Any, driven: Any
    ) -> None:
        """On a trade-off where each size has its best learning rate, the front comes near on all its length."""
        rate = {"learning_rate": {"loguniform": [1e-5, 1e-1]}}
        smooth |= {
            "methods": [{"adapter": {"adapter_size": {"randint": [1, 8]}, **rate}}],
            "search": {"algorithm": "nsga2", "num_samples": 80},
        }

        def score(trial: PlannedTrial) -> float:
            size = trial.config.method_options["adapter_size"]
            assert isinstance(size, int)
            return 1 - 1 / (1 + size) - (math.log10(trial.config.learning_rate) + 3) ** 2 / 10

        plan = plan_sweep(smooth)
        trials = driven(plan).train(score, at_once=4).began
        for result, _ in told:
            assert result is not None
            assert result.keys() == {"score", "trained_params"}
        assert {result["trained_params"] for result, _ in told if result} == {t.trained_params for t in trials}

        def short_of_the_front(found: Sequence[PlannedTrial]) -> float:
            best = {
                size: max((score(t) for t in found if t.config.method_options["adapter_size"] <= size), default=0.0)
                for size in range(1, 9)
            }
            return statistics.fmean(1 - 1 / (1 + size) - best[size] for size in best)

        assert short_of_the_front(trials) < 0.01
        assert short_of_the_front(trials) < short_of_the_front(plan.sample_trials())


class TestSeeds:
    def test_a_search_is_told_a_configuration_once_with_the_mean_over_its_seeds(
        self, smooth: Values, told: Any, driven: Any, height: Any
    ) -> None:
        smooth |= {"seeds": [0, 1, 2], "search": {"algorithm": "tpe", "num_samples": 5}}
        sweep = driven(plan_sweep(smooth)).train(lambda trial: height(trial) + trial.config.seed, at_once=2)
        assert [trial.config.seed for trial in sweep.began] == [0, 1, 2] * 5
        assert len(sweep.configurations) == 5
        means = [height(trial) + 1 for trial in sweep.began[::3]]
        assert told.scores == pytest.approx(means)

    def test_failed_and_cancelled_seeds_have_no_part_in_the_mean_and_pruned_ones_have(
        self, smooth: Values, told: Any, driven: Any, recorded: Any
    ) -> None:
        smooth |= {"seeds": [0, 1, 2, 3], "search": {"algorithm": "tpe", "num_samples": 2}}
        source = driven(plan_sweep(smooth)).source
        ends = [
            (0.5, TrialStatus.COMPLETED),
            (0.1, TrialStatus.FAILED),
            (0.3, TrialStatus.PRUNED),
            (0.9, TrialStatus.CANCELLED),
            *[(None, TrialStatus.FAILED)] * 4,
        ]
        for score, status in ends:
            trial = source.next()
            assert trial is not None
            source.ended(recorded(trial, score, status))
        assert [(result and result["score"], error) for result, error in told] == [
            (pytest.approx(0.4), False),
            (None, True),
        ]
        assert source.next() is None
        assert source.is_exhausted()

    def test_a_record_of_a_trial_it_never_named_is_none_of_its_business(
        self, smooth: Values, driven: Any, recorded: Any
    ) -> None:
        plan = plan_sweep(smooth)
        source = driven(plan).source
        source.ended(recorded(plan.sample_trials()[0], 0.5))
        assert source.next() is not None


class TestSupplying:
    def test_studies_take_turns_and_are_searched_apart(self, finite: Values, driven: Any) -> None:
        sweep = driven(plan_sweep(finite))
        assert sweep.source.most == 2 * 4 * 3
        sweep.train(lambda trial: trial.config.learning_rate)
        assert [trial.config.method for trial in sweep.began[::3]] == ["layernorm", "adapter"] * 4
        assert set(Counter(trial.config_id for trial in sweep.began).values()) == {3}
        assert sweep.source.is_exhausted()
        assert sweep.source.most == 0

    def test_another_thread_may_ask_how_many_are_left_while_the_next_is_named(
        self, finite: Values, monkeypatch: pytest.MonkeyPatch, driven: Any
    ) -> None:
        source = driven(plan_sweep(finite)).source
        left = _Course.left.fget
        assert left is not None
        turns = iter([source._courses.rotate])

        def left_meanwhile(course: Any) -> int:
            for turn in turns:  # the driver's thread comes between
                turn(-1)
            return int(left(course))

        monkeypatch.setattr(_Course, "left", property(left_meanwhile))
        assert source.by_key() == {UNKNOWN: 2 * 4 * 3}

    def test_all_may_be_under_way_at_once(self, finite: Values, driven: Any) -> None:
        sweep = driven(plan_sweep(finite)).train(lambda trial: trial.config.learning_rate, at_once=100)
        assert len(sweep.began) == 2 * 4 * 3

    @pytest.mark.parametrize("algorithm", ["tpe", "cmaes", "nsga2"])
    @pytest.mark.parametrize("at_once", [1, 30])
    @pytest.mark.thinned(2)
    def test_a_finite_space_is_exhausted(self, finite: Values, algorithm: str, at_once: int, driven: Any) -> None:
        finite["search"] = {"algorithm": algorithm, "num_samples": 50}
        plan = plan_sweep(finite)
        assert plan.most_trials == 2 * 6 * 3
        sweep = driven(plan).train(lambda trial: trial.config.learning_rate, at_once=at_once)
        assert set(Counter(trial.config_id for trial in sweep.began).values()) == {3}
        assert 8 <= len(sweep.configurations) <= 12  # a search that has settled proposes nothing new

    def test_what_is_known_is_told_at_once_and_not_trained_again(self, finite: Values, told: Any, driven: Any) -> None:
        finite |= {"search": {"algorithm": "tpe", "num_samples": 6}, "methods": ["layernorm"]}
        sweep = driven(plan_sweep(finite)).train(lambda trial: trial.config.learning_rate)
        assert len(told) > len(sweep.configurations)
        assert {round(score, 9) for score in told.scores} == {trial.config.learning_rate for trial in sweep.began}

    def test_one_that_another_entry_has_under_way_is_awaited_and_told_to_both(
        self, smooth: Values, told: Any, driven: Any
    ) -> None:
        smooth["methods"] = [{"layernorm": {"learning_rate": {"grid": [1e-4, 1e-3]}}}] * 2
        smooth["search"] = {"algorithm": "tpe", "num_samples": 2}
        sweep = driven(plan_sweep(smooth)).train(lambda trial: trial.config.learning_rate, at_once=10)
        assert len(sweep.began) == 2
        assert sweep.source.is_exhausted()
        assert {1e-4, 1e-3} == set(told.scores)
        assert len(told) > 2

    def test_what_does_not_go_together_is_passed_over(
        self, smooth: Values, monkeypatch: pytest.MonkeyPatch, driven: Any
    ) -> None:
        space = {"size": {"grid": [6, 4]}, "num_heads": {"grid": [2, 3]}}  # 4 is no multiple of 3
        smooth |= {"methods": [{"pals": space}], "search": {"algorithm": "tpe", "num_samples": 4}}
        monkeypatch.setattr("orchestrator.planning.plan.TRIED", 0)
        sweep = driven(plan_sweep(smooth)).train(lambda trial: 0.5)
        assert len(sweep.began) == 3
        assert sweep.source.is_exhausted()

    def test_a_study_of_one_point_is_trained_once(self, smooth: Values, driven: Any, height: Any) -> None:
        smooth |= {"methods": [{"layernorm": {"learning_rate": 1e-3}}], "seeds": [0, 1]}
        plan = plan_sweep(smooth)
        sweep = driven(plan).train(height)
        assert len(sweep.began) == plan.most_trials == 2

    def test_it_knows_the_longest_trial_of_each_task(self, finite: Values, driven: Any) -> None:
        finite["space"]["num_epochs"] = {"randint": [2, 7]}
        finite["methods"] = [{"layernorm": {"num_epochs": 9}}, {"adapter": {"adapter_size": 2}}]
        assert driven(plan_sweep(finite)).source.longest == {finite["tasks"][0]: 9}

    def test_a_configuration_is_the_same_as_in_a_grid(self, finite: Values, driven: Any, height: Any) -> None:
        grid = {trial.trial_id for trial in plan_sweep({**finite, "search": {"algorithm": "grid"}}).trials}
        assert {trial.trial_id for trial in driven(plan_sweep(finite)).train(height).began} <= grid


def test_memory_does_not_hold_the_trials_of_configurations_that_have_ended(
    finite: Values, driven: Any, height: Any
) -> None:
    sweep = driven(plan_sweep(finite)).train(height)
    assert all(not known.missing and not known._asked for known in sweep.source._known.values())
    assert sweep.source._under_way == {}


def test_a_study_that_finds_nothing_new_waits_for_news_before_it_gives_up(
    smooth: Values, monkeypatch: pytest.MonkeyPatch, driven: Any, recorded: Any
) -> None:
    asked: list[Values] = []

    def always_the_same(self: Searcher) -> tuple[str, Values]:
        asked.append(point)
        return self.retrace(point), point

    smooth |= {"methods": [{"layernorm": {"num_epochs": {"randint": [1, 3]}}}]}
    smooth["search"] = {"algorithm": "tpe", "num_samples": 3}
    point: Values = {"max_length": 16, "num_epochs": 2}
    monkeypatch.setattr(Searcher, "propose", always_the_same)
    source: AdaptiveTrials = driven(plan_sweep(smooth)).source
    trial = source.next()
    assert trial is not None
    assert source.next() is None
    assert source.next() is None
    assert len(asked) == 1 + PATIENCE
    assert not source.is_exhausted()
    source.ended(recorded(trial, 0.5))
    assert source.next() is None
    assert len(asked) == 1 + 2 * PATIENCE
    assert source.is_exhausted()


def test_tune_may_pickle_it_whatever_it_holds(finite: Values) -> None:
    lock = threading.Lock()
    source = adaptive_trials(plan_sweep(finite), [], [], lambda trials: lock.release())
    assert pickle.dumps(source)
