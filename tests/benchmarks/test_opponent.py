"""What both sides of a race are given, without racing."""

from __future__ import annotations

import sys

import pytest

import benchmarks
from benchmarks import NotMeasuredError, _opponent
from trainables.discovery import plugin_names


def test_the_opponents_are_not_taken_for_benchmarks():
    names = plugin_names(benchmarks)
    assert {"makespan", "methods", "planning", "startup"} <= set(names)
    assert not {"opponents", "_opponent"} & set(names)


def test_without_a_task_nothing_is_measured_and_the_message_says_what_to_set():
    with pytest.raises(NotMeasuredError, match="set ADAPTUNE_BENCH_TASK to a task folder"):
        _opponent.named_tasks({"ADAPTUNE_BENCH_TASK": " , "})


def test_a_task_that_the_recipe_cannot_learn_is_not_measured(tmp_path, task_folder):
    with pytest.raises(NotMeasuredError, match="regression by pearson"):
        _opponent.task_for_both(tmp_path / "task", str(task_folder(kind="regression")))


def test_both_sides_get_the_named_tasks_rows_its_training_rows_cut(tmp_path, task_folder):
    folder = str(task_folder(rows=64))
    whole = _opponent.task_for_both(tmp_path / "whole", folder)
    cut = _opponent.task_for_both(tmp_path / "cut", folder, rows=10)
    assert {split: len(table) for split, table in whole.splits.items()} == {"train": 64, "validation": 32, "test": 32}
    assert cut.splits["train"].equals(whole.splits["train"][:10])
    assert cut.splits["test"].equals(whole.splits["test"])
    assert cut.info.num_labels == whole.info.num_labels


def test_a_command_is_timed_whole_and_its_events_are_told_from_what_its_libraries_print(tmp_path):
    code = """import json; print("{'loss': 1}"); print(json.dumps({"event": "trial", "seconds": 2.5}))"""
    done = _opponent.run([sys.executable, "-c", code], tmp_path / "run")
    assert done.events == [{"event": "trial", "seconds": 2.5}]
    assert done.seconds > 0


def test_a_command_that_fails_ends_the_race_with_the_end_of_its_log(tmp_path):
    with pytest.raises(RuntimeError, match="out of luck"):
        _opponent.run([sys.executable, "-c", "raise SystemExit('out of luck')"], tmp_path / "run")
