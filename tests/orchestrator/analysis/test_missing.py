from __future__ import annotations

import io

import pyarrow as pa
import pyarrow.parquet

from orchestrator.analysis.missing import missing_of, missing_pairs, with_missing


def test_what_is_missing_travels_with_the_table_through_parquet_and_is_said_once() -> None:
    table = with_missing(with_missing(pa.table({"a": [1]}), ["one", "two"]), ["two", "three"])
    content = io.BytesIO()
    pyarrow.parquet.write_table(table, content)
    assert missing_of(pyarrow.parquet.read_table(content)) == ["one", "two", "three"]
    assert missing_of(pa.table({"a": [1]})) == []


def test_a_method_is_named_with_all_the_tasks_it_lacks() -> None:
    present = {("trec", "lora"), ("cola", "adapter"), ("trec", "adapter"), ("mrpc", "adapter")}
    assert missing_pairs(present, ["cola", "mrpc", "trec"], ["adapter", "lora"]) == [
        "lora: no completed trial on cola, mrpc"
    ]
