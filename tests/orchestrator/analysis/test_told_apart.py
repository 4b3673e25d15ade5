"""One name for several contents, as sweeps that share a store may have it."""

from __future__ import annotations

from typing import Any

import pyarrow as pa

from orchestrator.analysis.results import Results
from orchestrator.analysis.told_apart import told_apart

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


def test_folds_and_backbones_are_told_apart_and_what_is_unknown_keeps_its_name() -> None:
    def row(backbone: str, **provenance: str) -> dict[str, Any]:
        return {"task": "own", "backbone": backbone, "provenance": provenance}

    keys = ("data_fingerprint", "backbone_fingerprint", "folds")
    table = pa.Table.from_pylist(
        [
            row("minilm", data_fingerprint="1" * 64, backbone_fingerprint="c" * 64),
            row("minilm", data_fingerprint="1" * 64, backbone_fingerprint="d" * 64, folds="5"),
            row("mine", data_fingerprint="1" * 64, backbone_fingerprint="d" * 64),
            row("minilm"),
        ],
        schema=pa.schema(
            {
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
