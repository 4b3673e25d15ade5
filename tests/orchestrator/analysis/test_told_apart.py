"""One name for several contents, as sweeps that share a store may have it."""

from __future__ import annotations

import itertools
from typing import Any

import pyarrow as pa

from orchestrator.analysis.results import Results
from orchestrator.analysis.told_apart import told_apart
from tests.orchestrator.analysis.conftest import costs_of

ADAPTER = {"method": "adapter", "adapter_size": 8, "learning_rate": 1e-3}
LARGER = {"method": "adapter", "adapter_size": 64, "learning_rate": 1e-3}


def on(rows: list[dict[str, Any]], fingerprint: str) -> list[dict[str, Any]]:
    return [{**row, "provenance": {**row["provenance"], "data_fingerprint": fingerprint}} for row in rows]


def test_other_rows_under_a_tasks_name_are_another_task_in_every_answer(synthetic: Any) -> None:
    rows = [*on(synthetic.scored(ADAPTER, [0.90, 0.92]), "a" * 64), *on(synthetic.scored(LARGER, [0.7, 0.8]), "b" * 64)]
    (name,) = {row["task"] for row in rows}
    odd = [{"task": name, "warning": "short", "sentence": "said of both"}]
    results: Results = synthetic.results(rows, data_warnings=odd)
    first, second = results.best().to_pylist()
    assert (first["task"], first["adapter_size"]) == (f"{name}@aaaaaaa", 8)
    assert (second["task"], second["adapter_size"]) == (f"{name}@bbbbbbb", 64)
    assert set(results.epochs()["task"].to_pylist()) == {first["task"], second["task"]}
    assert [row["task"] for row in results.recommend().to_pylist()] == [first["task"], second["task"]]
    assert results.data_warnings().num_rows == 1


def test_of_one_content_each_name_stays(synthetic: Any) -> None:
    rows = synthetic.scored(ADAPTER, [0.90, 0.92])
    assert {row["task"] for row in synthetic.results(rows).trials().to_pylist()} == {rows[0]["task"]}


def test_a_failed_trial_without_provenance_is_of_its_configurations_task(synthetic: Any) -> None:
    first = on(synthetic.scored(ADAPTER, [0.90, 0.92, 0.91]), "a" * 64)
    first[0] = {**synthetic.fail(first[0]), "provenance": None}
    results: Results = synthetic.results([*first, *on(synthetic.scored(LARGER, [0.7]), "b" * 64)])
    found = [(row["task"], row["num_failed"]) for row in results.best().to_pylist()]
    assert found == [("trec@aaaaaaa", 1), ("trec@bbbbbbb", 0)]


def test_what_only_failed_on_a_faulty_file_takes_no_name_from_the_mended_one(synthetic: Any) -> None:
    faulty = on([synthetic.fail(row) for row in synthetic.scored(ADAPTER, [0.9, 0.9])], "a" * 64)
    results: Results = synthetic.results([*faulty, *on(synthetic.scored(LARGER, [0.7, 0.8]), "b" * 64)])
    assert set(results.trials()["task"].to_pylist()) == {"trec@aaaaaaa", "trec"}
    assert [(row["task"], row["num_configs_tried"], row["num_failed"]) for row in results.best().to_pylist()] == [
        ("trec", 1, 0)
    ]


def test_fingerprints_that_begin_alike_are_shown_as_far_as_they_differ(synthetic: Any) -> None:
    alike = [on(synthetic.scored(ADAPTER, [0.9]), "a" * 9 + "c"), on(synthetic.scored(LARGER, [0.7]), "a" * 9 + "d")]
    found = synthetic.results([row for rows in alike for row in rows]).best()["task"].to_pylist()
    assert found == [f"trec@{'a' * 9}c", f"trec@{'a' * 9}d"]


def test_ablations_and_what_answers_take_have_the_names_of_their_trials(synthetic: Any) -> None:
    rows = [*on(synthetic.scored(ADAPTER, [0.9]), "a" * 64), *on(synthetic.scored(LARGER, [0.7]), "b" * 64)]
    for row, letter in zip(rows, "cd", strict=True):
        row["provenance"]["backbone_fingerprint"] = letter * 64
    ablations = pa.Table.from_pylist(
        [
            {
                **{name: row[name] for name in ("task", "backbone", "trial_id")},
                **{"split": "validation", "num_layers": 1, "first_layer": 0, "last_layer": 0, "metric": "accuracy"},
                **dict.fromkeys(("score", "whole_score", "score_difference"), 0.5),
            }
            for row in rows
        ]
    )
    trials = pa.Table.from_pylist(rows)
    results = Results(trials, trials.select(["trial_id"]), ablations=ablations, inference_costs=costs_of(rows))
    assert results.ablation()["task"].to_pylist() == ["trec@aaaaaaa", "trec@bbbbbbb"]
    assert set(results.inference_costs()["backbone"].to_pylist()) == {"minilm@ccccccc", "minilm@ddddddd"}


def test_folds_and_backbones_are_told_apart_and_what_is_unknown_keeps_its_name() -> None:
    def row(backbone: str, **provenance: str) -> dict[str, Any]:
        known = {"task": "own", "backbone": backbone, "status": "completed", "provenance": provenance}
        return {"config_id": str(next(number)), **known}

    keys = ("data_fingerprint", "backbone_fingerprint", "folds")
    number = itertools.count()
    table = pa.Table.from_pylist(
        [
            row("minilm", data_fingerprint="1" * 64, backbone_fingerprint="c" * 64),
            row("minilm", data_fingerprint="1" * 64, backbone_fingerprint="d" * 64, folds="5"),
            row("mine", data_fingerprint="1" * 64, backbone_fingerprint="d" * 64),
            row("minilm"),
        ],
        schema=pa.schema(
            {
                "config_id": pa.string(),
                "status": pa.string(),
                "task": pa.string(),
                "backbone": pa.string(),
                "provenance": pa.struct([(key, pa.string()) for key in keys]),
            }
        ),
    )
    apart = told_apart(table)
    assert apart["task"].to_pylist() == ["own", "own (5 folds)", "own", "own"]
    assert apart["backbone"].to_pylist() == ["minilm@ccccccc", "minilm@ddddddd", "mine", "minilm"]
    once = table.slice(2)
    assert told_apart(once) is once
