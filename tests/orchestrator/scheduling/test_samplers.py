"""Searchers by themselves: the points they propose, and what they make of being told their worth."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

import optuna
import pytest

from orchestrator.planning.grid_random import ADAPTIVE
from orchestrator.scheduling.samplers import SAMPLERS, Searcher
from orchestrator.spec.space import Choice, Grid, LogUniform, RandInt, Uniform, same
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


def points(found: Searcher, count: int = 6) -> list[Mapping[str, Any]]:
    drawn = []
    for _ in range(count):
        key, point = found.propose()
        drawn.append(point)
        found.tell(key, float(str(point["uniform"])), 10)
    return drawn


def test_every_adaptive_algorithm_has_its_sampler() -> None:
    assert set(SAMPLERS) == set(ADAPTIVE)


@pytest.mark.parametrize("algorithm", ADAPTIVE)
class TestEveryAlgorithm:
    def test_its_points_lie_within_every_domain(self, algorithm: str) -> None:
        for point in points(searcher(algorithm)):
            assert point.keys() == EVERY_DOMAIN.keys()
            assert (point["fixed"], point["single"]) == (3, None)
            assert any(value is point["grid"] for value in (1, True, None, "one"))
            assert point["choice"] in (0.1, 0.5)
            assert -1 <= point["uniform"] <= 1
            assert 1e-5 <= point["loguniform"] <= 1e-1
            assert type(point["randint"]) is int
            assert 2 <= point["randint"] <= 5
            for name in ("uniform", "loguniform"):
                assert float(f"{point[name]:.6g}") == point[name]

    def test_a_wide_range_of_whole_numbers_is_no_list_of_them(self, algorithm: str) -> None:
        for entry in (RandInt(1, 10**9), RandInt(-(2**62), 2**63 - 1)):
            found = searcher(algorithm, {"wide": entry, "uniform": Uniform(0, 1)})
            for point in points(found, 5):
                assert type(point["wide"]) is int
                assert entry.low <= point["wide"] <= entry.high
                found.tell(found.retrace(point), 0.5, 10)

    def test_its_seed_decides_what_it_proposes(self, algorithm: str) -> None:
        assert points(searcher(algorithm)) == points(searcher(algorithm))
        assert points(searcher(algorithm), 3) != points(searcher(algorithm, seed=1), 3)
        assert points(searcher(algorithm), 3) != points(searcher(algorithm, earlier=2), 3)

    def test_the_order_in_which_a_space_is_written_does_not_matter(self, algorithm: str) -> None:
        other = searcher(algorithm, dict(reversed(EVERY_DOMAIN.items())))
        assert points(searcher(algorithm)) == points(other)

    def test_nothing_waits_for_what_is_under_way(self, algorithm: str) -> None:
        found = searcher(algorithm)
        assert len({json.dumps(found.propose()[1], sort_keys=True) for _ in range(20)}) == 20

    def test_a_point_of_which_nothing_could_be_learned_does_no_harm(self, algorithm: str) -> None:
        found = searcher(algorithm)
        for _ in range(8):
            found.tell(found.propose()[0], None, None)
        points(found, 4)

    def test_a_space_of_one_point_is_that_point(self, algorithm: str) -> None:
        found = searcher(algorithm, {"a": 1, "b": Uniform(2, 2), "c": RandInt(3, 3)})
        key, point = found.propose()
        assert point == {"a": 1, "b": 2, "c": 3}
        found.tell(key, 0.5, 10)
        found.tell(found.retrace(point), 0.5, 10)

    def test_points_of_an_earlier_run_are_taken_as_its_own(
        self, algorithm: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """What Optuna holds afterwards is what it would hold had it proposed them itself, generations included."""
        before = searcher(algorithm)
        told = [(point, number / 8, 10 * number) for number, point in enumerate(points_only(before, 8))]
        again = searcher(algorithm, earlier=8)
        for point, score, size in told:
            again.tell(again.retrace(point), score, size)
        ((study, trials),) = [(each, each.trials) for each in [again._search._ot_study]]  # type: ignore[union-attr]
        assert len(trials) == 8
        for trial, (point, score, size) in zip(trials, told, strict=True):
            assert trial.state == optuna.trial.TrialState.COMPLETE
            assert trial.values == ([score, size] if len(study.directions) == 2 else [score])
            for name in ("uniform", "loguniform", "randint"):
                assert trial.params[name] == point[name]
            assert same(json.loads(trial.params["grid"]), point["grid"])
        own = {json.dumps(point, sort_keys=True) for point, *_ in told}
        assert not own & {json.dumps(again.propose()[1], sort_keys=True) for _ in range(2)}


def points_only(found: Searcher, count: int) -> list[Mapping[str, Any]]:
    return [found.propose()[1] for _ in range(count)]


@pytest.mark.parametrize(("algorithm", "near"), [("cmaes", 0.2), ("nsga2", 0.5)])
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


def test_nobody_is_told_of_optuna_s_own_doings(capfd: pytest.CaptureFixture[str]) -> None:
    for algorithm in ADAPTIVE:
        points(searcher(algorithm), 5)
    assert capfd.readouterr() == ("", "")


def test_a_proposal_near_an_end_that_has_more_digits_stays_within() -> None:
    low, high = 0.12345678, 0.12345699
    found = searcher("tpe", {"uniform": Uniform(low, high)})
    assert all(low <= float(str(point["uniform"])) <= high for point in points(found))
