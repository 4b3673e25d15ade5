"""From a space to configurations."""

from __future__ import annotations

from typing import Any

from orchestrator.planning.search_algorithms import (
    MAX_TRIALS,
    SEARCH_ALGORITHMS,
    draw_configurations,
    enumerate_configurations,
    search_faults,
)
from orchestrator.spec.spec import SweepSpec, parse_spec

SPACE: dict[str, Any] = {"learning_rate": {"grid": [1e-3, 3e-3]}, "num_epochs": 3}
METHODS: list[Any] = [{"adapter": {"adapter_size": {"choice": [2, 8]}}}, "layernorm"]


def spec_of(space: dict[str, Any] = SPACE, methods: list[Any] = METHODS, **more: Any) -> SweepSpec:
    return parse_spec({"name": "sweep", "tasks": ["toy/topic"], "space": space, "methods": methods, **more})


def configurations(spec: SweepSpec, task: str = "toy/topic", entry: int = 0) -> list[dict[str, Any]]:
    return list(enumerate_configurations(spec, spec.methods[entry], task))


def random_spec(num_samples: int = 20, space: dict[str, Any] | None = None, **more: Any) -> SweepSpec:
    ranges = {"learning_rate": {"loguniform": [1e-5, 1e-2]}, "num_epochs": {"randint": [1, 9]}, "batch_size": 32}
    return spec_of(space or ranges, search={"algorithm": "random", "num_samples": num_samples}, **more)


def test_a_grid_is_every_point_in_the_order_it_is_written() -> None:
    assert configurations(spec_of()) == [
        {"learning_rate": rate, "num_epochs": 3, "adapter_size": size} for rate in (1e-3, 3e-3) for size in (2, 8)
    ]


def test_what_stands_below_a_method_overrides_the_shared_space() -> None:
    spec = spec_of(methods=[{"layernorm": {"learning_rate": 0.1, "num_epochs": {"grid": [1, 2]}}}])
    assert configurations(spec) == [{"learning_rate": 0.1, "num_epochs": epochs} for epochs in (1, 2)]


class TestRandomSearch:
    def test_the_same_seed_draws_the_same_and_another_seed_does_not(self) -> None:
        assert configurations(random_spec()) == configurations(random_spec())
        search = {"algorithm": "random", "num_samples": 20, "seed": 1}
        assert configurations(random_spec()) != configurations(
            random_spec().model_copy(update={"search": parse_spec({**_minimal(), "search": search}).search})
        )

    def test_another_task_or_method_or_more_samples_leave_a_draw_as_it_was(self) -> None:
        alone = configurations(random_spec(methods=["layernorm"]))
        assert configurations(random_spec(methods=["full_finetuning", "layernorm"]), entry=1) == alone
        assert configurations(random_spec(num_samples=40, methods=["layernorm"]))[:20] == alone
        assert configurations(random_spec(methods=["layernorm"]), task="toy/sentiment") != alone

    def test_the_order_in_which_a_space_is_written_does_not_matter(self) -> None:
        space = {"num_epochs": {"randint": [1, 9]}, "batch_size": 32, "learning_rate": {"loguniform": [1e-5, 1e-2]}}
        assert configurations(random_spec(space=space)) == configurations(random_spec())

    def test_a_configuration_is_drawn_once(self) -> None:
        drawn = configurations(random_spec(space={"num_epochs": {"randint": [1, 3]}}, methods=["layernorm"]))
        assert sorted(values["num_epochs"] for values in drawn) == [1, 2, 3]


def test_what_an_adaptive_search_proposes_is_no_list_but_random_draws_stand_for_it() -> None:
    random = random_spec()
    adaptive = random.model_copy(update={"search": random.search.model_copy(update={"algorithm": "gp"})})
    assert configurations(adaptive) == []
    assert list(draw_configurations(adaptive, adaptive.methods[0], "toy/topic")) == configurations(random)


def _minimal() -> dict[str, Any]:
    return {"name": "sweep", "tasks": ["toy/topic"], "methods": ["layernorm"]}


class TestFaults:
    def test_an_unknown_algorithm_is_refused_with_the_known_ones(self) -> None:
        (fault,) = search_faults(spec_of(search={"algorithm": "grd"}))
        known = ", ".join(sorted(SEARCH_ALGORITHMS))
        assert fault == f"search.algorithm: unknown search algorithm 'grd'; did you mean 'grid'? Known: {known}"

    def test_a_grid_takes_neither_ranges_nor_a_number_of_samples(self) -> None:
        spec = spec_of({"learning_rate": {"uniform": [0.1, 0.2]}}, search={"num_samples": 3})
        first, second = search_faults(spec)
        assert first.startswith("search.num_samples: grid search tries every point")
        assert second.endswith("but got {'uniform': [0.1, 0.2]}")

    def test_a_sweep_nobody_can_train_is_refused_before_it_is_enumerated(self) -> None:
        wide = {name: {"grid": list(range(1, 1001))} for name in ("num_epochs", "batch_size", "max_length")}
        many = {"algorithm": "tpe", "num_samples": 10 * MAX_TRIALS}
        for spec in (spec_of(wide), random_spec(num_samples=10 * MAX_TRIALS), spec_of(search=many)):
            (fault,) = search_faults(spec)
            assert fault.startswith("a sweep must have at most 1,000,000 trials, but this one has up to")
