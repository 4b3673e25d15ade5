from __future__ import annotations

from typing import Any

from orchestrator.analysis.configurations import group_by_configuration
from orchestrator.analysis.reported import Method, reported
from orchestrator.analysis.shared import comparable, shared
from tests.orchestrator.analysis.large_sweep import TASKS, large_results, large_rows


def configurations(rows: list[dict[str, Any]]) -> Any:
    return group_by_configuration(large_results(rows).trials())


def test_the_chosen_configuration_is_the_best_on_validation_and_reported_on_test() -> None:
    rows = large_rows(TASKS[:2], ("adapter",))
    found = reported(configurations(rows))
    for task in TASKS[:2]:
        means: dict[str, list[tuple[float, float]]] = {}
        for row in rows:
            if row["task"] == task:
                means.setdefault(row["config_id"], []).append((row["validation_score"], row["test_score"]))
        best = max(means, key=lambda config: sum(v for v, _ in means[config]))
        speaker = found[task, Method("bert-base-uncased", "adapter")]
        assert speaker.configuration.config_id == best
        assert sorted(speaker.score.scores) == sorted(test for _, test in means[best])
        assert (speaker.split, speaker.num_configs_tried) == ("test", 12)


def test_a_task_without_test_scores_is_reported_on_validation() -> None:
    found = reported(configurations(large_rows(TASKS[-1:], ("adapter",))))
    assert {speaker.split for speaker in found.values()} == {"validation"}


def test_a_method_that_lacks_most_tasks_stays_out_rather_than_taking_them_from_all_others() -> None:
    a, b, c = Method("m", "a"), Method("m", "b"), Method("m", "c")
    found = {(task, method) for task in "wxyz" for method in (a, b)} | {("w", c)}
    tasks, methods, notes = comparable(found, list("wxyz"), [a, b, c])
    assert (tasks, methods) == (list("wxyz"), [a, b])
    assert notes == ["c is left out: it has completed on 1 of 4 tasks"]


def test_a_method_that_lacks_one_task_of_many_stays_and_the_task_goes() -> None:
    methods = [Method("m", name) for name in "abc"]
    found = {(task, method) for task in "stuvwxyz" for method in methods} - {("w", methods[0])}
    tasks, kept, notes = comparable(found, list("stuvwxyz"), methods)
    assert (tasks, kept) == (list("stuvxyz"), methods)
    assert notes == ["so over 7 tasks, without w"]


def test_of_nothing_there_is_nothing_to_compare() -> None:
    data = shared(())
    assert (data.tasks, data.methods, data.missing) == ((), (), ())
