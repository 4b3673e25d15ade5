"""What a search algorithm must do, whichever it is. Every entry of SEARCH_ALGORITHMS is tested the moment it exists."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import optuna
import pytest

from orchestrator.planning.plan import PlannedTrial, plan_sweep
from orchestrator.planning.search_algorithms import (
    SEARCH_ALGORITHMS,
    Enumerated,
    Sampled,
    enumerate_configurations,
    search_faults,
)
from orchestrator.record import TrialRecord, TrialStatus
from orchestrator.scheduling.samplers import Searcher
from orchestrator.scheduling.search import PATIENCE, adaptive_trials
from orchestrator.spec.space import Choice, Grid, LogUniform, RandInt, Uniform, same
from orchestrator.spec.spec import SearchSpec, SweepSpec, parse_spec

EVERY_DOMAIN: Mapping[str, Any] = {
    "fixed": 3,
    "single": Grid([None]),
    "grid": Grid([1, True, None, "one"]),
    "choice": Choice([0.1, 0.5]),
    "uniform": Uniform(-1, 1),
    "loguniform": LogUniform(1e-5, 1e-1),
    "randint": RandInt(2, 5),
}
LISTS = {name: entry for name, entry in EVERY_DOMAIN.items() if name in ("fixed", "single", "grid", "choice")}
ENUMERATED = {name: entry for name, entry in SEARCH_ALGORITHMS.items() if isinstance(entry, Enumerated)}
SAMPLED = {name: entry for name, entry in SEARCH_ALGORITHMS.items() if isinstance(entry, Sampled)}


def assert_within(point: Mapping[str, Any], space: Mapping[str, Any] = EVERY_DOMAIN) -> None:
    """A value for each name, out of its domain, True and 1 told apart."""
    assert point.keys() == space.keys()
    for name, value in point.items():
        match space[name]:
            case Grid() | Choice() as entry:
                assert any(same(value, each) for each in entry.values), name
            case RandInt() as entry:
                assert type(value) is int
                assert entry.low <= value <= entry.high, name
            case Uniform() | LogUniform() as entry:
                assert type(value) is float
                assert entry.low <= value <= entry.high, name
            case fixed:
                assert same(value, fixed), name


def text(point: Mapping[str, Any]) -> str:
    return json.dumps(point, sort_keys=True)


def spec_of(algorithm: str, space: Mapping[str, Any], num_samples: int | None = 20, **search: Any) -> SweepSpec:
    entry = SEARCH_ALGORITHMS[algorithm]
    if not (isinstance(entry, Enumerated) and entry.is_exhaustive):
        search["num_samples"] = num_samples
    values = {"name": "sweep", "tasks": ["toy/topic"], "methods": ["layernorm"], "space": dict(space)}
    return parse_spec({**values, "search": {"algorithm": algorithm, **search}})


@pytest.mark.parametrize("algorithm", SEARCH_ALGORITHMS)
class TestEveryAlgorithm:
    def space(self, algorithm: str) -> Mapping[str, Any]:
        entry = SEARCH_ALGORITHMS[algorithm]
        return LISTS if isinstance(entry, Enumerated) and entry.is_exhaustive else EVERY_DOMAIN

    def test_a_sweep_may_ask_for_it_over_every_domain_it_takes(self, algorithm: str) -> None:
        assert search_faults(spec_of(algorithm, self.space(algorithm))) == []

    def test_it_needs_a_number_of_samples_unless_it_tries_every_point(self, algorithm: str) -> None:
        faults = search_faults(spec_of(algorithm, self.space(algorithm), num_samples=None))
        if self.space(algorithm) is EVERY_DOMAIN:
            assert faults == [f"search.num_samples: {algorithm} search needs a whole number >= 1, but it is missing"]
        else:
            assert faults == []
            both = spec_of(algorithm, EVERY_DOMAIN).model_copy(
                update={"search": SearchSpec(algorithm=algorithm, num_samples=3)}
            )
            said = "\n".join(search_faults(both))
            assert f"search.num_samples: {algorithm} search tries every point" in said
            assert all(f"space.{name}: {algorithm} search needs a grid" in said for name in EVERY_DOMAIN.keys() - LISTS)

    def test_sweeps_that_nobody_can_train_are_refused(self, algorithm: str) -> None:
        huge = {name: Grid([*range(1, 1001)]) for name in ("a", "b", "c")}
        (fault,) = search_faults(spec_of(algorithm, huge, num_samples=10**7))
        assert fault.startswith("a sweep must have at most 1,000,000 trials")


@pytest.mark.parametrize("algorithm", ENUMERATED)
class TestEnumerated:
    def points(self, algorithm: str, space: Mapping[str, Any], task: str = "t", **search: Any) -> list[dict[str, Any]]:
        spec = spec_of(algorithm, space, **search)
        return list(enumerate_configurations(spec, spec.methods[0], task))

    def space(self, algorithm: str) -> Mapping[str, Any]:
        return LISTS if ENUMERATED[algorithm].is_exhaustive else EVERY_DOMAIN

    def test_its_points_lie_within_every_domain_and_none_comes_twice(self, algorithm: str) -> None:
        found = self.points(algorithm, self.space(algorithm))
        for point in found:
            assert_within(point, self.space(algorithm))
        assert len({text(point) for point in found}) == len(found) > 0

    def test_it_gives_as_many_as_were_asked_for_or_all_there_are(self, algorithm: str) -> None:
        if ENUMERATED[algorithm].is_exhaustive:
            assert len(self.points(algorithm, LISTS)) == 4 * 2
        else:
            assert len(self.points(algorithm, EVERY_DOMAIN, num_samples=9)) == 9
        assert len(self.points(algorithm, LISTS, num_samples=1000)) == 4 * 2  # and then it ends

    def test_its_seed_decides_what_is_drawn(self, algorithm: str) -> None:
        space = self.space(algorithm)
        assert self.points(algorithm, space) == self.points(algorithm, space)
        if not ENUMERATED[algorithm].is_exhaustive:
            assert self.points(algorithm, space, seed=1) != self.points(algorithm, space)
            assert self.points(algorithm, space, task="other") != self.points(algorithm, space)

    def test_the_order_in_which_a_space_is_written_does_not_matter(self, algorithm: str) -> None:
        space = self.space(algorithm)
        turned = self.points(algorithm, dict(reversed(space.items())))
        assert sorted(map(text, turned)) == sorted(map(text, self.points(algorithm, space)))

    def test_more_samples_leave_the_first_ones_as_they_were(self, algorithm: str) -> None:
        """So that a wider sweep trains only what is missing."""
        few, many = (self.points(algorithm, self.space(algorithm), num_samples=number) for number in (5, 12))
        assert {text(point) for point in few} <= {text(point) for point in many}

    def test_a_space_of_one_point_is_that_point(self, algorithm: str) -> None:
        assert self.points(algorithm, {"a": 1, "b": Grid([True])}) == [{"a": 1, "b": True}]


def searcher(algorithm: str, space: Mapping[str, Any] = EVERY_DOMAIN, *, seed: int = 0, earlier: int = 0) -> Searcher:
    return Searcher(
        "task:method", space, SearchSpec(algorithm=algorithm, num_samples=12, seed=seed), "max", earlier=earlier
    )


def told(found: Searcher, count: int = 6) -> list[Mapping[str, Any]]:
    """Points, each told its worth before the next."""
    drawn = []
    for _ in range(count):
        key, point = found.propose()
        drawn.append(point)
        found.tell(key, float(str(point["uniform"])), 10)
    return drawn


def untold(found: Searcher, count: int) -> list[Mapping[str, Any]]:
    return [found.propose()[1] for _ in range(count)]


@pytest.mark.parametrize("algorithm", SAMPLED)
class TestSampled:
    def test_its_points_lie_within_every_domain(self, algorithm: str) -> None:
        for point in told(searcher(algorithm), 7):
            assert_within(point)
            for name in ("uniform", "loguniform"):  # rounded, so that a point has one text and so one identity
                assert float(f"{point[name]:.6g}") == point[name]

    def test_a_wide_range_of_whole_numbers_is_no_list_of_them(self, algorithm: str) -> None:
        for entry in (RandInt(1, 10**9), RandInt(-(2**62), 2**63 - 1)):
            space = {"wide": entry, "uniform": Uniform(0, 1)}
            found = searcher(algorithm, space)
            for point in told(found, 5):
                assert_within(point, space)
                found.tell(found.retrace(point), 0.5, 10)

    def test_nothing_waits_for_what_is_under_way(self, algorithm: str) -> None:
        assert len({text(point) for point in untold(searcher(algorithm), 20)}) == 20

    def test_a_point_of_which_nothing_could_be_learned_does_no_harm(self, algorithm: str) -> None:
        found = searcher(algorithm)
        for _ in range(8):
            found.tell(found.propose()[0], None, None)
        told(found, 4)

    def test_a_space_of_one_point_is_that_point(self, algorithm: str) -> None:
        found = searcher(algorithm, {"a": 1, "b": Uniform(2, 2), "c": RandInt(3, 3)})
        key, point = found.propose()
        assert point == {"a": 1, "b": 2, "c": 3}
        found.tell(key, 0.5, 10)
        found.tell(found.retrace(point), 0.5, 10)

    def test_a_finite_space_is_exhausted_though_some_trials_fail(self, algorithm: str, tiny_bert: Path) -> None:
        values = {
            "name": "small",
            "backbone": str(tiny_bert),
            "tasks": ["toy/sentiment"],
            "seeds": [0],
            "space": {"max_length": 16, "learning_rate": {"grid": [1e-4, 1e-3, 1e-2]}},
            "methods": [{"layernorm": {"num_epochs": {"randint": [1, 2]}}}],
            "search": {"algorithm": algorithm, "num_samples": 4 * PATIENCE},
        }
        began = train_all(values, lambda trial: None if trial.config.num_epochs == 2 else trial.config.learning_rate)
        tried = [(trial.config.learning_rate, trial.config.num_epochs) for trial in began]
        assert len(set(tried)) == len(tried)
        assert len(tried) >= 4  # of six; a search that has settled proposes nothing new


# A Gaussian process is fitted for each proposal, in a tenth of a second: every day it has the tests above alone.
@pytest.mark.parametrize(
    "algorithm", [pytest.param(name, marks=pytest.mark.thorough) if name == "gp" else name for name in SAMPLED]
)
class TestSampledAgain:
    def test_its_seed_decides_what_it_proposes(self, algorithm: str) -> None:
        found = told(searcher(algorithm))
        assert told(searcher(algorithm)) == found
        assert told(searcher(algorithm, seed=1), 3) != found[:3]

    def test_the_order_in_which_a_space_is_written_does_not_matter(self, algorithm: str) -> None:
        assert told(searcher(algorithm)) == told(searcher(algorithm, dict(reversed(EVERY_DOMAIN.items()))))

    def test_points_of_an_earlier_run_are_taken_as_its_own(self, algorithm: str) -> None:
        """What Optuna holds afterwards is what it would hold had it proposed them itself, generations included."""
        earlier = [(point, number / 8, 10 * number) for number, point in enumerate(untold(searcher(algorithm), 8))]
        again = searcher(algorithm, earlier=8)
        for point, score, size in earlier:
            again.tell(again.retrace(point), score, size)
        study = again._search._ot_study  # type: ignore[union-attr]
        assert len(study.trials) == 8
        for trial, (point, score, size) in zip(study.trials, earlier, strict=True):
            assert trial.state == optuna.trial.TrialState.COMPLETE
            assert trial.values == ([score, size] if SAMPLED[algorithm].weighs_size else [score])
            for name in ("uniform", "loguniform", "randint"):
                assert trial.params[name] == point[name]
            assert same(json.loads(trial.params["grid"]), point["grid"])
        assert not {text(point) for point, *_ in earlier} & {text(point) for point in untold(again, 4)}


def train_all(values: dict[str, Any], score: Callable[[PlannedTrial], float | None]) -> list[PlannedTrial]:
    """What a driver does with a new sweep, two trials at a time and without training; gives what it began."""
    source = adaptive_trials(plan_sweep(values), [], [], lambda trials: None)
    began: list[PlannedTrial] = []
    under_way: deque[PlannedTrial] = deque()
    while True:
        while len(under_way) < 2 and (trial := source.next()) is not None:
            began.append(trial)
            under_way.append(trial)
        if not under_way:
            assert source.is_exhausted()
            return began
        trial = under_way.popleft()
        reached = score(trial)
        source.ended(
            TrialRecord(
                sweep="small",
                trial_id=trial.trial_id,
                config_id=trial.config_id,
                task=trial.task,
                backbone=trial.config.backbone,
                method=trial.config.method,
                seed=trial.config.seed,
                status=TrialStatus.FAILED if reached is None else TrialStatus.COMPLETED,
                hyperparameters=trial.config.hyperparameters(),
                trained_params=trial.trained_params,
                validation_score=reached,
            )
        )
