"""Adaptive search that goes on: what a store holds is taken in, and only what is missing is trained."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from orchestrator.planning.plan import plan_sweep
from orchestrator.planning.search_algorithms import SEARCH_ALGORITHMS, Sampled
from tests.orchestrator.conftest import write_backbone

Values = dict[str, Any]
ADAPTIVE = [name for name, algorithm in SEARCH_ALGORITHMS.items() if isinstance(algorithm, Sampled)]


class TestResuming:
    @pytest.mark.parametrize("algorithm", ADAPTIVE)
    @pytest.mark.thinned(2)
    def test_it_goes_on_with_what_it_was_told_and_proposes_nothing_twice(
        self, smooth: Values, algorithm: str, told: Any, driven: Any, height: Any
    ) -> None:
        smooth["search"] = {"algorithm": algorithm, "num_samples": 9}
        smooth["seeds"] = [0, 1]
        plan = plan_sweep(smooth)
        first = driven(plan).train(height, most=12)
        second = driven(plan, first)
        before = told.scores[:6]
        assert told.scores[6:] == pytest.approx(before)  # what an undisturbed search had been told by then
        assert second.source.most == 6
        second.train(height)
        assert len(second.began) == 6
        assert not set(first.configurations) & set(second.configurations)
        assert len({trial.trial_id for trial in second.planned}) == 18

    @pytest.mark.parametrize("algorithm", ["tpe", "cmaes", "nsga2"])
    def test_incomplete_configurations_get_only_the_seeds_they_lack_and_get_them_first(
        self, smooth: Values, algorithm: str, told: Any, driven: Any, height: Any
    ) -> None:
        smooth |= {"seeds": [0, 1, 2], "search": {"algorithm": algorithm, "num_samples": 4}}
        plan = plan_sweep(smooth)
        first = driven(plan).train(lambda t: height(t) + t.config.seed, most=7)
        lost = first.began[1].trial_id  # a failed one, whose record was retired
        second = driven(plan, first, without=[lost]).train(lambda t: height(t) + t.config.seed, at_once=2)
        assert [trial.trial_id for trial in second.began[:3]] == [
            lost,
            *(trial.trial_id for trial in second.planned[7:9]),
        ]
        assert len(second.began) == 12 - 6
        by_configuration = [height(trial) + 1 for trial in second.planned[::3]]
        assert sorted(told.scores[-4:]) == pytest.approx(sorted(by_configuration))

    def test_a_wider_spec_adds_seeds_and_samples(self, smooth: Values, driven: Any, height: Any) -> None:
        smooth["search"] = {"algorithm": "tpe", "num_samples": 3}
        wider = {**smooth, "seeds": [0, 7], "search": {"algorithm": "tpe", "num_samples": 5}}
        first = driven(plan_sweep(smooth)).train(height)
        second = driven(plan_sweep(wider), first).train(height)
        assert [trial.config.seed for trial in second.began] == [7, 7, 7, 0, 7, 0, 7]
        assert [trial.config_id for trial in second.began[:3]] == first.configurations
        assert len({trial.trial_id for trial in second.planned}) == 10

    def test_points_outside_a_changed_space_count_as_trained_and_are_not_told(
        self, smooth: Values, told: Any, driven: Any, height: Any
    ) -> None:
        smooth["search"] = {"algorithm": "tpe", "num_samples": 6}
        first = driven(plan_sweep(smooth)).train(height)
        told.clear()
        changed = {**smooth, "methods": [{"layernorm": {"learning_rate": {"loguniform": [1e-3, 1e-1]}}}]}
        assert driven(plan_sweep(changed), first).source.is_exhausted()
        changed["search"] = {"algorithm": "tpe", "num_samples": 8}
        second = driven(plan_sweep(changed), first)
        assert told == []
        assert len(second.train(height).began) == 2

    def test_what_stayed_within_a_changed_space_is_told(
        self, smooth: Values, told: Any, driven: Any, height: Any
    ) -> None:
        first = driven(plan_sweep(smooth)).train(height)
        told.clear()
        smooth["methods"][0]["layernorm"]["learning_rate"] = {"loguniform": [1e-3, 1e-1]}
        driven(plan_sweep(smooth), first)
        within = [height(trial) for trial in first.began if trial.config.learning_rate >= 1e-3]
        assert 0 < len(within) < 30
        assert told.scores == pytest.approx(within)

    def test_a_search_learns_from_the_grid_that_came_before(
        self, finite: Values, told: Any, driven: Any, height: Any, recorded: Any
    ) -> None:
        grid = plan_sweep({**finite, "search": {"algorithm": "grid"}})
        before = driven(plan_sweep(finite))
        before.planned = list(grid.trials)
        before.records = [recorded(trial, 0.5) for trial in grid.trials]
        wider = {**finite, "search": {"algorithm": "tpe", "num_samples": 9}}
        wider["space"]["learning_rate"] = {"loguniform": [1e-4, 1e-2]}
        after = driven(plan_sweep(wider), before)
        assert len(told) == 12
        assert len(after.train(height).began) == 2 * 3 * 3

    def test_another_backbone_gets_a_search_of_its_own_and_leaves_the_first_one_s_as_it_is(
        self, smooth: Values, tmp_path: Path, told: Any, driven: Any, height: Any
    ) -> None:
        smooth["search"] = {"algorithm": "tpe", "num_samples": 6}
        first = driven(plan_sweep(smooth)).train(height)
        told.clear()
        wider = {**smooth, "backbone": [smooth["backbone"], str(write_backbone(tmp_path / "other", seed=1))]}
        second = driven(plan_sweep(wider), first)
        assert told.scores == pytest.approx([height(trial) for trial in first.began])
        assert second.source.most == 6
        second.train(height)
        assert {trial.config.backbone for trial in second.began} == {wider["backbone"][1]}
        # Chance draws the same for both, and equal scores teach the same.
        assert [t.hyperparameters for t in second.began] == [t.hyperparameters for t in first.began]

    def test_trials_of_other_rows_are_passed_over(
        self, smooth: Values, write_task: Callable[..., Path], tmp_path: Path, driven: Any, height: Any
    ) -> None:
        first = driven(plan_sweep(smooth)).train(height, most=4)
        smooth["tasks"] = [str(write_task(rows=40, under=tmp_path))]
        assert driven(plan_sweep(smooth), first).source.most == 30

    def test_entries_that_overlap_have_as_many_configurations_after_a_resume_as_without(
        self, smooth: Values, driven: Any, height: Any
    ) -> None:
        space = smooth["methods"][0]["layernorm"]
        smooth |= {"methods": [{"layernorm": space}, {"layernorm": {**space, "num_epochs": {"randint": [1, 3]}}}]}
        smooth["search"] = {"algorithm": "tpe", "num_samples": 6}
        first = driven(plan_sweep(smooth)).train(height, most=7)
        second = driven(plan_sweep(smooth), first)
        assert len(first.began) + len(second.train(height).began) == 12
