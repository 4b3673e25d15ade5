from __future__ import annotations

import pyarrow as pa

from orchestrator.analysis.paper.methods_paragraph import methods_paragraph
from orchestrator.analysis.results import Results
from tests.orchestrator.analysis.large_sweep import COLUMNS, PROVENANCE, TASKS, large_results, large_rows


def test_it_has_every_number_of_the_store() -> None:
    rows = [
        {**row, "provenance": {**PROVENANCE, "rows": "4952 train, 500 validation, 500 test"}}
        for row in large_rows(TASKS[4:6], ("adapter", "lora"))
    ]
    text = methods_paragraph(large_results(rows))
    for words in (
        "bert-base-uncased (109,482,240 parameters)",
        "2 tasks with 2 methods (adapter and lora)",
        "trec (4952 train, 500 validation, 500 test rows)",
        "12 configurations of adapter (adapter_size {2, 8, 64, 256}, learning_rate {0.0001, 0.0003, 0.001})",
        "6 configurations of lora (rank {4, 16}",
        "3 seeds (0, 1, 2), 108 trials in all: 102 completed, 6 failed",
        "best mean validation score over seeds",
        "ddof = 1",
        "NVIDIA H100 80GB HBM3",
        "torch 2.13.0",
        "Python 3.11.2",
        "commit 0123abc",
        "at most 1.86 GiB",
    ):
        assert words in text, words


def test_what_was_not_recorded_is_said_to_be_so() -> None:
    rows = [{**row, "provenance": None, "test_score": None} for row in large_rows(TASKS[:1], ("adapter",))]
    text = methods_paragraph(large_results(rows))
    assert "hardware that was not recorded" in text
    assert "the commit was not recorded" in text
    assert "No task has test scores" in text
    assert "nothing to describe" in methods_paragraph(large_results([]))


def test_what_only_some_configurations_had_is_not_said_of_all() -> None:
    first = large_rows(TASKS[4:6], ("adapter",))
    more = [{**row, "seed": row["seed"] + 3, "trial_id": f"{row['trial_id']}+"} for row in first[:3]]
    text = methods_paragraph(large_results([*first, *more, *large_rows(TASKS[4:5], ("layernorm",))]))
    assert "trained with 3 to 6 seeds of 6 (0, 1, 2, 3, 4, 5), 84 trials" in text
    assert "12 configurations of adapter (" in text
    assert "0 to 3 configurations of layernorm (" in text


def test_trials_that_trained_together_share_their_time() -> None:
    rows = [{**row, "duration_s": 60.0, "pack_size": 2.0} for row in large_rows(TASKS[4:5], ("layernorm",))]
    trials = pa.Table.from_pylist(rows, schema=COLUMNS.append(pa.field("pack_size", pa.float64())))
    text = methods_paragraph(Results(trials, trials.select(["trial_id"])))
    assert f"took {len(rows) // 2} min {len(rows) % 2 * 30:02d} s of engine time" in text


def test_without_several_seeds_or_tasks_nothing_is_said_of_spread_over_them() -> None:
    one_seed = methods_paragraph(large_results(large_rows(TASKS[4:6], ("adapter", "lora"), seeds=(0,))))
    assert "Scores are those of one seed" in one_seed
    assert "Welch" not in one_seed
    assert "sign-flip" in one_seed
    one_task = methods_paragraph(large_results(large_rows(TASKS[4:5], ("adapter", "lora"))))
    assert "The task was trec" in one_task
    assert "95 % intervals: Welch's over seeds on a task." in one_task
    both = methods_paragraph(large_results(large_rows(TASKS[4:5], ("adapter", "lora"), seeds=(0,))))
    assert "intervals" not in both


def test_of_more_tasks_than_all_signs_are_looked_at_no_test_is_called_exact() -> None:
    for number, words in ((20, "the exact sign-flip test over tasks"), (21, "100,000 assignments of signs drawn")):
        tasks = [f"task {index}" for index in range(number)]
        assert words in methods_paragraph(large_results(large_rows(tasks, ("layernorm", "bitfit"), seeds=(0,))))
