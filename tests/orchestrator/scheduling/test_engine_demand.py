"""What a plan can still use of a growing cluster: what to ask for, and what to give back."""

from __future__ import annotations

import pytest

from orchestrator.scheduling.engine_demand import (
    GIVE_BACK_S,
    STEP,
    Idle,
    engines_to_ask_for,
    engines_wanted,
    to_give_back,
)
from orchestrator.scheduling.engine_layout import EngineLayout, helpers_on


@pytest.mark.parametrize(
    ("left", "num_gpus", "expected"),
    [
        ({}, 0, 0),
        ({"k": 1}, 0, 1),
        ({"k": 4, "l": 5, None: 3}, 0, 1 + 2 + 3),
        ({"k": 40}, 0, 10),
        ({"k": 40}, 1, 3),
        ({"k": 40}, 0.5, 5),
    ],
)
def test_an_engine_is_wanted_for_each_full_pack_and_each_trial_that_trains_alone(
    left: dict[str | None, int], num_gpus: float, expected: int
) -> None:
    assert engines_wanted(left, EngineLayout(count=1, num_gpus=num_gpus, num_threads=1)) == expected


@pytest.mark.parametrize(
    ("wanted", "room", "there", "asked", "expected"),
    [
        (1, 2, 2, 0, -1),  # the plan can use less than there is: nothing to ask for, nothing to take back of that
        (10, 2, 2, 0, STEP),
        (10, 2, 2, STEP, 0),
        (4, 2, 2, 0, 2),
        (3, 2, 2, 4, -3),  # trials ran out while nodes were awaited
        (100, 20, 20, 0, 20),  # a cluster doubles
    ],
)
def test_a_growing_cluster_is_asked_for_what_the_plan_can_use_in_steps(
    wanted: int, room: int, there: int, asked: int, expected: int
) -> None:
    assert engines_to_ask_for(wanted=wanted, room=room, there=there, asked=asked) == expected


def idle(*nodes: str | None, idle_s: float = GIVE_BACK_S) -> list[Idle]:
    return [Idle(place=place, idle_s=idle_s, node=node) for place, node in enumerate(nodes)]


@pytest.mark.parametrize(
    ("found", "wanted", "there", "expected"),
    [
        (idle("a", "b", "b"), 5, 8, [0, 1, 2]),  # five others are busy
        (idle("a", "b", "b"), 6, 8, [0, 1]),  # one is kept; a node of its own goes first
        (idle("a", "b"), 8, 8, []),
        (idle("home", "home", "a"), 0, 3, [2]),
        (idle("a", idle_s=GIVE_BACK_S - 1), 0, 1, []),
        (idle(None), 0, 1, [0]),  # its node left, and the plan needs none in its place
        ([], 0, 4, []),
    ],
)
def test_idle_engines_beyond_the_plan_are_given_back_but_none_of_the_drivers_node(
    found: list[Idle], wanted: int, there: int, expected: list[int]
) -> None:
    assert to_give_back(found, wanted=wanted, there=there, home="home") == expected


def test_nodes_without_gpus_help_those_that_have_some() -> None:
    offered = {"head": (4.0, 0.0), "gpu": (8.0, 2.0), "cpu": (2.0, 0.0), "none": (0.0, 0.0)}
    assert helpers_on(offered, "head") == {"head": 3, "cpu": 2}
    assert helpers_on({"head": (1.0, 0.0), "gpu": (8.0, 1.0)}, "head") == {}
    assert helpers_on({"head": (4.0, 0.0)}, "head") == {}
