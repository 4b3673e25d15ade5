"""What the sweep's own run shows."""

from __future__ import annotations

import re

import pytest

from orchestrator.engine_status import EngineStatus
from orchestrator.tracking.overview import EngineLog, best_points, best_tags, linked, sweep_note

BEST = {
    "task": "data/trec",
    "config_id": "c",
    "method": "adapter",
    "metric": "accuracy",
    "validation_mean": 0.9,
    "validation_sem": 0.01,
    "test_mean": 0.8,
    "test_sem": None,
    "num_seeds": 3,
    "num_configs_tried": 4,
    "trained_params": 12345,
}


def test_the_best_of_a_task_is_a_metric_a_tag_and_a_line_with_a_link():
    assert {point.key: point.value for point in best_points([BEST], 7)} == {
        "best_validation/data/trec": 0.9,
        "best_validation_sem/data/trec": 0.01,
        "best_test/data/trec": 0.8,
    }
    assert best_tags([BEST], {"c": "r1"}.get) == {"adaptune.best/data/trec": "r1"}
    assert best_tags([BEST], {}.get) == {}
    note = sweep_note({"name": "s", "tasks": ["a"]}, [BEST], lambda _: linked("a|b", "#/r1"), "#/report")
    assert note.startswith("Sweep **s**: 1 task.")
    row = r"| data/trec | [a\|b](#/r1) | 0.8000 | 0.9000 ± 0.0100 | accuracy | 3 | 4 | 12,345 |"
    assert note.endswith(f"{row}\n\n[Report](#/report)")


@pytest.mark.parametrize(
    "tasks",
    [
        ("情感", "意图"),
        ("größe", "grüße"),
        ("trec (v2)", "trec [v2]", "trec _v2_"),
        ("x", "x/", "./x", "/x"),
        ("a/b", "a//b"),
        ("..", ".", "_"),
        ("t" * 260, "t" * 261),
        ("情" * 90, "情" * 91),
        ("a", "a\n"),
    ],
)
def test_tasks_of_any_name_have_metrics_and_tags_of_their_own(tasks):
    from mlflow.utils.validation import _validate_metric_name, _validate_tag

    best = [{**BEST, "task": task, "config_id": task} for task in tasks]
    points, tags = best_points(best, 0), best_tags(best, str)
    assert len({point.key for point in points}) == len(points) == 3 * len(tasks)
    assert sorted(tags.values()) == sorted(tasks)
    for key in [*tags, *(point.key for point in points)]:
        _validate_metric_name(key)
        _validate_tag(key, "")  # which holds its length against MLflow's limit too


def test_a_task_s_name_is_its_key_where_mlflow_takes_it_and_else_as_much_of_it_as_that():
    assert list(best_tags([{**BEST, "task": "größe/情感 1.0"}], str)) == ["adaptune.best/größe/情感 1.0"]
    (key,) = best_tags([{**BEST, "task": "tréc (v2)"}], str)
    assert re.fullmatch("adaptune.best/tréc _v2_-[0-9a-f]{8}", key)


def test_an_engine_s_share_of_time_in_training_is_that_of_the_looks(record):
    log = EngineLog()
    log.look([EngineStatus(engine="h/gpu", num_trials=4, examples_per_second=100.0), EngineStatus(engine="h/cpu")], 10)
    log.look([EngineStatus(engine="h/gpu", num_trials=2, examples_per_second=300.0), EngineStatus(engine="h/cpu")], 11)
    log.look([EngineStatus(engine="h/gpu"), EngineStatus(engine="h/cpu")], 12)
    log.ended(record("a", engine="h/gpu", peak_memory_bytes=5))
    log.ended(record("b", engine="h/gpu", peak_memory_bytes=3))
    log.ended(record("c", engine=None, peak_memory_bytes=9))
    assert {point.key: point.value for point in log.take(14, 1)} == {
        "system/h/gpu/busy_percentage": 50.0,
        "system/h/gpu/trials_in_training": 1.5,
        "system/h/gpu/examples_per_second": 200.0,
        "system/h/gpu/peak_memory_bytes": 5.0,
        "system/h/cpu/busy_percentage": 0.0,
        "system/h/cpu/trials_in_training": 0.0,
    }
    later = {point.key: point.value for point in log.take(15, 2)}
    assert later["system/h/gpu/busy_percentage"] == 0
    assert "system/h/gpu/peak_memory_bytes" not in later


def test_without_engines_there_is_nothing_to_show():
    assert EngineLog().take(5, 5) == []


@pytest.mark.parametrize("spec", [{}, [], {"name": "s"}])
def test_a_spec_that_says_little_makes_a_short_description(spec):
    assert sweep_note(spec, [], lambda _: None, None).startswith("Sweep **")


def test_of_a_sweep_with_folds_means_are_over_replicates():
    note = sweep_note({"name": "s", "seeds": [0], "folds": 5}, [{**BEST, "num_folds": 5}], lambda _: None, None)
    assert note.startswith("Sweep **s**: 1 seed, 5 folds.")
    assert "over replicates" in note
    assert "| metric | replicates | tried |" in note
