"""Whatever questions are asked with: one clear error, or an answer."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from orchestrator.analysis.results import Results
from trainables.faults import FaultsError

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
    ],
)
def test_numbers_of_numpy_and_single_names_are_taken(
    finished: Results, question: str, arguments: dict[str, Any], same: dict[str, Any]
) -> None:
    sides = {"a": "adapter", "b": "full_finetuning"} if question == "compare" else {}
    assert getattr(finished, question)(**sides, **arguments).equals(getattr(finished, question)(**sides, **same))


def test_a_wish_that_no_known_size_can_fulfil_says_that_sizes_are_not_recorded(synthetic: Any) -> None:
    sizes = dict.fromkeys(("trained_params", "trained_params_without_head"))
    rows = synthetic.scored({"method": "layernorm", "learning_rate": 1e-3}, [0.8, 0.9], **sizes)
    (row,) = synthetic.results(rows).recommend(max_params=1000).to_pylist()
    assert row["config_id"] is None
    assert row["why"] == (
        "None of 1 configuration has at most 1,000 trained parameters; how many they have is not recorded."
    )
