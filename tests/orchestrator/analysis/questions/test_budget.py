from __future__ import annotations

from typing import Any

import pytest

from orchestrator.analysis.questions.budget import budget, sentences
from orchestrator.analysis.results import Results


def test_it_counts_settings_trials_and_their_ends(finished: Results) -> None:
    rows = {(row["task"], row["method"]): row for row in budget(finished.trials()).to_pylist()}
    assert len(rows) == 4 * 4
    adapter = rows["trec", "adapter"]
    assert (adapter["num_configs"], adapter["num_seeds"], adapter["num_trials"]) == (6, 3, 18)
    assert (adapter["num_completed"], adapter["num_failed"], adapter["num_pruned"]) == (17, 1, 0)


def test_trials_that_train_together_share_their_engine(synthetic: Any) -> None:
    rows = synthetic.scored({"method": "layernorm", "learning_rate": 1e-3}, [0.5, 0.6], duration_s=40.0, pack_size=4.0)
    alone = synthetic.scored(
        {"method": "adapter", "adapter_size": 2, "learning_rate": 1e-3}, [0.5], duration_s=40.0, pack_size=None
    )
    unknown = synthetic.scored({"method": "full_finetuning", "learning_rate": 1e-3}, [0.5], duration_s=None)
    spent = budget(synthetic.results([*rows, *alone, *unknown]).trials()).to_pylist()
    assert {row["method"]: row["engine_seconds"] for row in spent} == {
        "layernorm": pytest.approx(20.0), "adapter": 40.0, "full_finetuning": None,
    }  # fmt: skip


def test_unequal_budgets_are_said(finished: Results, synthetic: Any) -> None:
    said = " ".join(sentences(budget(finished.trials())))
    assert said.startswith(
        "Methods did not have the same budget: adapter tried 6 settings on each task, layernorm 1 setting."
    )
    assert said.endswith("In engine time adapter took most, 48 min 17 s, and layernorm least, 8 min 00 s.")


def test_equal_budgets_are_said_and_one_method_has_none_to_compare(synthetic: Any) -> None:
    rows = [
        row
        for method in ("full_finetuning", "layernorm")
        for row in synthetic.scored({"method": method, "learning_rate": 1e-3}, [0.5], duration_s=10.0)
    ]
    assert sentences(budget(synthetic.results(rows).trials())) == ["Every method tried 1 setting on each task."]
    assert sentences(budget(synthetic.results(rows[:1]).trials())) == []


def test_a_method_that_was_not_tried_on_every_task_is_not_said_to_have_been(synthetic: Any) -> None:
    layernorm = {"method": "layernorm", "learning_rate": 1e-3}
    both = [row for task in ("a", "b") for row in synthetic.scored(layernorm, [0.5], task=task, duration_s=None)]
    once = synthetic.scored({"method": "full_finetuning", "learning_rate": 1e-4}, [0.5], task="a", duration_s=None)
    [said] = sentences(budget(synthetic.results([*both, *once]).trials()))
    assert "layernorm tried 1 setting on each task, full_finetuning 0 to 1 setting." in said
