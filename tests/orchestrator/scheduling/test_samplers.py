"""Searchers by themselves; what all have in common is in tests/contracts/test_search_contract.py."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import pytest

from orchestrator.planning.search_algorithms import SEARCH_ALGORITHMS, Sampled
from orchestrator.scheduling.samplers import Searcher
from orchestrator.spec.space import Choice, Grid, LogUniform, RandInt, Uniform
from orchestrator.spec.spec import SearchSpec

EVERY_DOMAIN: Mapping[str, Any] = {
    "fixed": 3,
    "single": Grid([None]),
    "grid": Grid([1, True, None, "one"]),
    "choice": Choice([0.1, 0.5]),
    "uniform": Uniform(-1, 1),
    "loguniform": LogUniform(1e-5, 1e-1),
    "randint": RandInt(2, 5),
}


def searcher(
    algorithm: str, space: Mapping[str, Any] = EVERY_DOMAIN, *, seed: int = 0, num_samples: int = 12, **options: Any
) -> Searcher:
    search = SearchSpec(algorithm=algorithm, num_samples=num_samples, seed=seed)
    return Searcher("task:method", space, search, options.pop("mode", "max"), **options)


def points_only(found: Searcher, count: int) -> list[Mapping[str, Any]]:
    return [found.propose()[1] for _ in range(count)]


@pytest.mark.parametrize(("algorithm", "near"), [("cmaes", 0.2), ("nsga2", 0.5)])
@pytest.mark.thinned(1)
def test_generations_go_on_from_the_points_of_an_earlier_run(algorithm: str, near: float) -> None:
    def distance(point: Mapping[str, Any]) -> float:
        return math.hypot(point["a"] - 0.9, point["b"] - 0.9)

    space = {"a": Uniform(0, 1), "b": Uniform(0, 1)}
    before, again = (searcher(algorithm, space, num_samples=60, earlier=earlier) for earlier in (0, 60))
    for _ in range(60):
        key, point = before.propose()
        before.tell(key, -distance(point), 10)
        again.tell(again.retrace(point), -distance(point), 10)
    after = [distance(point) for point in points_only(again, 10)]
    assert sum(after) / 10 < near < 0.56  # which it would be by chance


class TestQuasiRandom:
    SPACE: Mapping[str, Any] = {"a": Uniform(0, 1), "b": Grid(["x", "y", "z", "w"]), "c": RandInt(1, 8), "one": 7}

    def test_every_hyperparameter_is_covered_evenly_from_the_first_point(self) -> None:
        for seed in range(3):
            drawn = points_only(searcher("qmc", self.SPACE, seed=seed, num_samples=16), 16)
            assert sorted(int(float(str(point["a"])) * 16) for point in drawn) == list(range(16))
            assert sorted(point["b"] for point in drawn) == sorted(["x", "y", "z", "w"] * 4)
            assert sorted(point["c"] for point in drawn) == sorted([*range(1, 9)] * 2)

    def test_after_an_earlier_run_the_sequence_goes_on_where_it_was(self) -> None:
        undisturbed = points_only(searcher("qmc", self.SPACE), 12)
        again = searcher("qmc", self.SPACE, earlier=5)
        for point in undisturbed[:5]:
            again.tell(again.retrace(point), 0.5, 10)
        assert points_only(again, 7) == undisturbed[5:]

    def test_what_points_were_worth_changes_nothing(self) -> None:
        told = searcher("qmc", self.SPACE)
        drawn = []
        for number in range(8):
            key, point = told.propose()
            drawn.append(point)
            told.tell(key, None if number == 2 else number / 8, 10)
        assert drawn == points_only(searcher("qmc", self.SPACE), 8)


def test_a_lower_score_is_better_where_the_mode_says_so() -> None:
    space = {"a": Uniform(0, 1)}
    for mode, low, high in (("min", 0.0, 0.3), ("max", 0.7, 1.0)):
        found = searcher("tpe", space, num_samples=60, mode=mode)
        drawn = []
        for _ in range(40):
            key, point = found.propose()
            drawn.append(float(str(point["a"])))
            found.tell(key, drawn[-1], None)
        assert low <= sum(drawn[-10:]) / 10 <= high


@pytest.mark.thorough
def test_nobody_is_told_of_optuna_s_own_doings(capfd: pytest.CaptureFixture[str]) -> None:
    for algorithm in (name for name, each in SEARCH_ALGORITHMS.items() if isinstance(each, Sampled)):
        found = searcher(algorithm)
        for score in range(5):
            found.tell(found.propose()[0], score / 5, 10)
    assert capfd.readouterr() == ("", "")


def test_a_proposal_near_an_end_that_has_more_digits_stays_within() -> None:
    low, high = 0.12345678, 0.12345699
    found = searcher("tpe", {"uniform": Uniform(low, high)})
    assert all(low <= float(str(point["uniform"])) <= high for point in points_only(found, 6))
