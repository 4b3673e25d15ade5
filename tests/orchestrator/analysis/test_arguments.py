"""Whatever questions are asked with: one clear error, or an answer."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import numpy as np
import pandas as pd
import pytest

from orchestrator.analysis.results import Results
from trainables.faults import FaultsError

_HUGE = 10**400  # more than a float holds

FAULTY: tuple[tuple[str, dict[str, Any], tuple[str, ...]], ...] = (
    *(
        (question, {"cost": cost}, ("unknown cost",))
        for question in ("pareto", "trade_off")
        for cost in ("x", ["x"], None, 1)
    ),
    *(
        (question, {"split": split}, ("unknown split",))
        for question in ("curve", "points", "calibration", "score_table", "paired_differences", "comparisons")
        for split in ("tset", ["test"], 1)
    ),
    *(
        (question, {"per": per}, ("column to group by",))
        for question in ("best", "optimism", "calibration")
        for per in (["task", ["x"]], ["task", None], {"task": 1, 2: 3})
    ),
    ("best", {"per": 5}, ("column to group by 5", "must contain 'task'")),
    ("best", {"per": None}, ("column to group by None", "must contain 'task'")),
    ("recommend", {"within": -1, "max_params": 0.5, "prefer": ["x"]}, ("within:", "max_params:", "prefer:")),
    ("recommend", {"within": float("nan"), "max_params": True}, ("within:", "max_params:")),
    ("curve", {"normalize_to": ["adapter"], "quantiles": (2, "x")}, ("got 2", "got 'x'", "to normalize to")),
    (
        "compare",
        {"a": "adapter", "b": {"adapter_size": "8"}},
        ("'8'. Known: 2, 8, 64",),
    ),
    (
        "compare",
        {"a": {"method": "layernorm", "adapter_size": 8}, "b": "adapter"},
        ("a: no configuration of this sweep has all of layernorm, adapter_size 8",),
    ),
    ("compare", {"a": "adapter", "b": "layernorm", "test_rows": 5, "margin": [1]}, ("margin:", "test_rows:")),
    ("compare", {"a": "adapter", "b": "layernorm", "test_rows": {"trec": 0.5, "x": 1}}, ("got 0.5", "'x'")),
    ("comparisons", {"methods": "x"}, ("unknown method of this sweep 'x'",)),
    ("comparisons", {"methods": ["adapter", ["x"]]}, ("['x']",)),
    ("comparisons", {"methods": "adapter"}, ("must name at least two",)),
    ("calibration", {"num_bins": 10**12, "binning": ["x"]}, ("num_bins:", "binning:")),
    ("importance", {"task": ["trec"]}, ("unknown task",)),
    ("paired_differences", {"reference": ["adapter"]}, ("unknown method",)),
    ("ablation", {"trial_id": ["x"]}, ("unknown ablated trial",)),
    ("draw", {"figure": ["curve"]}, ("unknown figure",)),
    ("draw", {"figure": "curve", "quantiles": ()}, ("quantiles: must be at least one",)),
    (
        "recommend",
        {"within": _HUGE, "max_params": _HUGE},
        ("within:", "max_params: must be a whole number > 0 and below"),
    ),
    ("recommend", {"within": Fraction(1, 3), "max_params": pd.NA}, ("within:", "max_params:")),
    ("curve", {"quantiles": [Fraction(1, 3), pd.NA, _HUGE]}, ("got Fraction(1, 3)", "got <NA>", "got 1000")),
    ("compare", {"a": "adapter", "b": {"adapter_size": pd.NA}}, ("b: adapter_size must be a value or a list",)),
    ("compare", {"a": {"adapter_size": np.eye(2)}, "b": "adapter"}, ("a: adapter_size must be a value or a list",)),
    ("compare", {"a": {"adapter_size": np.array([8, 9])}, "b": "adapter"}, ("unknown adapter_size of this sweep 9",)),
    ("compare", {"a": {pd.NA: 1}, "b": "adapter"}, ("unknown column <NA>",)),
    ("compare", {"a": "adapter", "b": "layernorm", "equalise": np.array([])}, ("equalise: must be true or false",)),
    ("compare", {"a": "adapter", "b": "layernorm", "test_rows": {"trec": _HUGE}}, ("test_rows:",)),
    ("comparisons", {"equalise": pd.NA}, ("equalise: must be true or false",)),
    ("predictions_of", {"trial_ids": ["x", "x", pd.NA]}, ("unknown trial <NA>", "x stands twice", "unknown trial 'x'")),
    ("paper", {"folder": b"x"}, ("folder: must be a path",)),
    ("paper", {"folder": "\x00"}, ("folder: must be a path",)),
    *(
        (question, {name: value}, (told,))
        for value in (pd.NA, np.array(["task", "test"]), np.array([]), np.array([[1]]))
        for question, name, told in (
            ("score_table", "split", "unknown split"),
            ("profile", "split", "unknown split"),
            ("ranks", "split", "unknown split"),
            ("robustness", "hyperparameter", "unknown hyperparameter"),
        )
    ),
    *((question, {"per": ["task", pd.NA]}, ("column to group by <NA>",)) for question in ("best", "optimism")),
    ("best", {"per": np.array(5)}, ("column to group by array(5)", "must contain 'task'")),
    ("predictions", {"trial_id": None, "split": ["test"]}, ("unknown trial None", "split:")),
    ("predictions_of", {"trial_ids": "x"}, ("unknown trial 'x'",)),
    ("predictions_of", {"trial_ids": 5}, ("unknown trial 5",)),
)


@pytest.mark.parametrize(("question", "arguments", "told"), FAULTY, ids=lambda value: str(value))
@pytest.mark.thinned(30)
def test_what_cannot_be_asked_is_one_error_that_names_all_of_it(
    finished: Results, question: str, arguments: dict[str, Any], told: tuple[str, ...]
) -> None:
    with pytest.raises(FaultsError) as error:
        getattr(finished, question)(**arguments)
    assert len(error.value.faults) == len(told)
    for words in told:
        assert words in str(error.value)


@pytest.mark.parametrize(
    ("question", "arguments", "same"),
    [
        ("recommend", {"max_params": np.int64(300_000)}, {"max_params": 300_000}),
        ("recommend", {"max_params": 3e5}, {"max_params": 300_000}),
        ("recommend", {"within": np.float32(0.5)}, {"within": 0.5}),
        ("curve", {"quantiles": np.array([0.25, 0.5, 0.75])}, {"quantiles": (0.25, 0.5, 0.75)}),
        ("curve", {"quantiles": 0.5}, {"quantiles": (0.5,)}),
        ("best", {"per": "task"}, {"per": ["task"]}),
        ("compare", {"margin": np.float32(0.5)}, {"margin": 0.5}),
        ("compare", {"test_rows": {"trec": np.int64(500)}}, {"test_rows": {"trec": 500}}),
        *(
            ("compare", {"b": {"adapter_size": sizes}}, {"b": {"adapter_size": [8, 64]}})
            for sizes in (np.array([8, 64]), pd.Series([8, 64]), (8, 64), [np.int64(8), np.int64(64)])
        ),
        ("compare", {"b": {"adapter_size": np.array(8)}}, {"b": {"adapter_size": 8}}),
    ],
)
def test_numbers_of_numpy_and_single_names_are_taken(
    finished: Results, question: str, arguments: dict[str, Any], same: dict[str, Any]
) -> None:
    sides = {"a": "adapter", "b": "full_finetuning"} if question == "compare" else {}
    found, expected = (getattr(finished, question)(**{**sides, **each}) for each in (arguments, same))
    assert found.drop_columns("b").equals(expected.drop_columns("b")) if "b" in same else found.equals(expected)


def test_values_of_a_side_may_come_from_a_generator_and_are_named_as_a_list(finished: Results) -> None:
    sizes = {"method": "adapter", "adapter_size": (size for size in (8, 64))}
    assert set(finished.compare(sizes, "layernorm")["a"].to_pylist()) == {"adapter, adapter_size [8, 64]"}


@pytest.mark.parametrize("odd", [pd.NA, np.array([1, 2]), ["x", []]])
def test_of_an_empty_sweep_what_is_no_name_is_refused_all_the_same(synthetic: Any, odd: Any) -> None:
    empty = synthetic.results([])
    for ask in (empty.points, empty.curve):
        with pytest.raises(FaultsError, match="to normalize to"):
            ask(normalize_to=odd)
    with pytest.raises(FaultsError, match="unknown method of this sweep"):
        empty.comparisons([odd])
    assert not len(empty.curve(normalize_to="adapter"))


def test_a_wish_that_no_known_size_can_fulfil_says_that_sizes_are_not_recorded(synthetic: Any) -> None:
    sizes = dict.fromkeys(("trained_params", "trained_params_without_head"))
    rows = synthetic.scored({"method": "layernorm", "learning_rate": 1e-3}, [0.8, 0.9], **sizes)
    (row,) = synthetic.results(rows).recommend(max_params=1000).to_pylist()
    assert row["config_id"] is None
    assert row["why"] == (
        "None of 1 configuration has at most 1,000 trained parameters; how many they have is not recorded."
    )
