"""Searches and rules of early stopping that cannot be followed."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.planning.search_algorithms import SEARCH_ALGORITHMS, Sampled

HUGE = 10**400
ADAPTIVE = [name for name, algorithm in SEARCH_ALGORITHMS.items() if isinstance(algorithm, Sampled)]
RANGE = {"learning_rate": {"loguniform": [1e-4, 1e-2]}, "num_epochs": 1}
GRID = {"learning_rate": {"grid": [1e-4, 1e-2]}, "num_epochs": 1}


class Asked(NamedTuple):
    """What a sweep asks for, and what must be said of it, if anything."""

    changes: dict[str, Any]
    said: tuple[str, ...] = ()


def search(value: Any, *said: str, space: Any = GRID) -> Asked:
    return Asked({"search": value, "space": space}, said)


def stop(value: Any, *said: str) -> Asked:
    return Asked({"early_stopping": value}, said)


SEARCHES = {
    **{
        f"search {value!r}": search(value, "search: must be a mapping")
        for value in (3, "grid", [], ["grid"], True, [{"algorithm": "grid"}])
    },
    "null": search(None, "search: must be a mapping, but got nothing"),
    "nothing said": search({}),
    **{
        f"algorithm {value!r}": search({"algorithm": value}, "search.algorithm: must be text")
        for value in (None, 3, [], {}, True)
    },
    "no name": search({"algorithm": ""}, "unknown search algorithm ''"),
    "a slip": search({"algorithm": "gird"}, "unknown search algorithm 'gird'", "did you mean 'grid'"),
    "another slip": search({"algorithm": "nsga-ii"}, "unknown search algorithm 'nsga-ii'", "nsga2"),
    "a capital": search({"algorithm": "TPE"}, "unknown search algorithm 'TPE'"),
    "a private name": search({"algorithm": "__class__"}, "unknown search algorithm '__class__'"),
    **{
        f"num_samples {value!r}": search({"algorithm": "random", "num_samples": value}, "search.num_samples: must be")
        for value in (0, -1, 1.5, 2.0, "3", True, [], float("nan"))
    },
    "too many samples": search({"algorithm": "random", "num_samples": 10**9}, "at most 1,000,000 trials"),
    "samples without end": search({"algorithm": "random", "num_samples": HUGE}, "at most 1,000,000 trials"),
    "samples of a grid": search({"num_samples": 4}, "grid search tries every point and takes no num_samples"),
    "random without a number": search(
        {"algorithm": "random"}, "search.num_samples: random search needs a whole number"
    ),
    "a range in a grid": search({}, "space.learning_rate: grid search needs a grid", "loguniform", space=RANGE),
    "a grid of millions": search(
        {},
        "at most 1,000,000 trials",
        space={
            "batch_size": {"grid": list(range(1, 1200))},
            "warmup_ratio": {"grid": [number / 1200 for number in range(1, 1200)]},
        },
    ),
    "a random search of ranges": search({"algorithm": "random", "num_samples": 2}, space=RANGE),
    **{
        f"max_concurrent_trials {value!r}": search(
            {"max_concurrent_trials": value}, "search.max_concurrent_trials: must"
        )
        for value in (0, -3, 1.5, "2", True, [])
    },
    **{f"seed {value!r}": search({"seed": value}, "search.seed: must") for value in (-1, 1.5, "0", True, 2**63, HUGE)},
    **{
        f"{name} without a number": search({"algorithm": name}, f"search.num_samples: {name} search needs", space=RANGE)
        for name in ADAPTIVE
    },
    **{
        f"{name} of ranges": search({"algorithm": name, "num_samples": 3, "seed": 2**62}, space=RANGE)
        for name in ADAPTIVE
    },
    **{
        f"{name} of too many": search(
            {"algorithm": name, "num_samples": 10**7}, "at most 1,000,000 trials", space=RANGE
        )
        for name in ADAPTIVE
    },
}
STOPS = {
    **{
        f"early_stopping {value!r}": stop(value, "early_stopping: must be none, the name of a rule")
        for value in (3, 1.5, True, [], ["asha"], {}, {"asha": {}, "median": {}})
    },
    "nothing": stop(None),
    "none": stop("none"),
    **{name: stop(name) for name in ("asha", "hyperband", "median")},
    "a rule with settings": stop({"asha": {"grace_period": 2, "reduction_factor": 2.5, "max_epochs": 9}}),
    "a slip": stop("ahsa", "unknown rule of early stopping 'ahsa'", "did you mean 'asha'"),
    "a slip with settings": stop({"medain": {}}, "unknown rule of early stopping 'medain'", "did you mean 'median'"),
    "an empty name": stop("", "unknown rule of early stopping ''"),
    "a capital": stop("ASHA", "unknown rule of early stopping 'ASHA'"),
    **{
        f"settings {value!r}": stop({"asha": value}, "asha: must be a mapping of settings")
        for value in (3, "x", [], [1], True)
    },
    "an unknown setting": stop({"asha": {"grace_perod": 1}}, "setting of asha 'grace_perod'", "mean 'grace_period'"),
    "another rule's setting": stop({"median": {"reduction_factor": 2}}, "unknown setting of median 'reduction_factor'"),
    **{
        f"grace_period {value!r} of {name}"[:40]: stop({name: {"grace_period": value}}, f"{name}.grace_period: must")
        for name, value in (
            ("asha", 0), ("asha", -1), ("median", 1.5), ("hyperband", "1"), ("median", None), ("asha", True),
            ("asha", HUGE),
        )
    },
    **{
        f"reduction_factor {value!r}"[:40]: stop({"asha": {"reduction_factor": value}}, "reduction_factor: must be")
        for value in (1, 0, -2, "3", None, True, [], float("nan"), float("inf"), HUGE)
    },
    **{
        f"max_epochs {value!r}"[:40]: stop({"asha": {"max_epochs": value}}, "asha.max_epochs: must be")
        for value in (0, 2.5, "9", True, [], HUGE)
    },
    "max_epochs below the grace": stop(
        {"asha": {"grace_period": 4, "max_epochs": 2}}, "asha.max_epochs: must be at least the grace period of 4"
    ),
    **{
        f"brackets {value!r}": stop({"hyperband": {"brackets": value}}, "hyperband.brackets: must be")
        for value in (0, 1.5, "2", None, True)
    },
    **{
        f"min_trials {value!r}": stop({"median": {"min_trials": value}}, "median.min_trials: must be")
        for value in (0, -1, 1.5, "2", None)
    },
    "several settings": stop(
        {"asha": {"grace_period": 0, "reduction_factor": 1, "max_epoch": 2}},
        "asha.grace_period",
        "asha.reduction_factor",
        "unknown setting of asha 'max_epoch'",
    ),
}  # fmt: skip
CASES = {
    **{f"search: {name}": case for name, case in SEARCHES.items()},
    **{f"early stopping: {name}": case for name, case in STOPS.items()},
}


def write_python(path: Path, values: Any) -> str:
    path.write_text(f"nan, inf = float('nan'), float('inf')\nSWEEP = {values!r}\n", encoding="utf-8")
    return str(path)


def test_a_search_or_rule_is_refused_or_followed(
    sound: Callable, call: Callable, home: Path, subtests: pytest.Subtests
) -> None:
    for name, case in CASES.items():
        with subtests.test(name):
            ended = call("run", write_python(home / "sweep.py", {**sound(), **case.changes}))
            if case.said:
                ended.assert_refused(*case.said)
            else:
                assert ended.is_accepted, ended
            assert not (home / "sweeps").exists()


@settings(max_examples=25, deadline=None, derandomize=True)
@given(
    chosen=st.tuples(
        st.sampled_from([case for case in SEARCHES.values() if case.said and case.changes["space"] is GRID]),
        st.sampled_from([case for case in STOPS.values() if case.said]),
    )
)
def test_faults_of_both_are_named_together(
    chosen: Sequence[Asked], sound: Callable, call: Callable, home: Path
) -> None:
    values = {**sound(), **chosen[0].changes, **chosen[1].changes, "seeds": [-1]}
    ended = call("run", write_python(home / "sweep.py", values))
    ended.assert_refused("seeds.0: must be >= 0", *chosen[0].said, *chosen[1].said)


@settings(max_examples=30, deadline=None, derandomize=True)
@given(
    key=st.sampled_from(["search", "early_stopping"]),
    values=st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.sampled_from(["asha", "grid", "tpe", "x"]),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from(["asha", "median", "algorithm", "num_samples", "seed", "grace_period", "x"]),
                inner,
                max_size=3,
            )
        ),
        max_leaves=8,
    ),
)
def test_anything_is_refused_or_followed(key: str, values: Any, sound: Callable, call: Callable, home: Path) -> None:
    (home / "any.json").write_text(json.dumps({**sound(), key: values}), encoding="utf-8")
    ended = call("run", "any.json")
    if not ended.is_accepted:
        ended.assert_refused(" fault")
