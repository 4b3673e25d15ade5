from __future__ import annotations

from orchestrator.analysis.paper.methods_paragraph import methods_paragraph
from tests.orchestrator.analysis.large_sweep import PROVENANCE, TASKS, large_results, large_rows


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
