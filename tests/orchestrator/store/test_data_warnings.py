from __future__ import annotations

import logging
from pathlib import Path

import pyarrow as pa
import pytest

from orchestrator.store import Store


def of(**by_task: str) -> pa.Table:
    return pa.table({"task": list(by_task), "warning": ["few-rows"] * len(by_task), "sentence": list(by_task.values())})


def test_those_of_a_task_replace_each_other_and_leave_the_other_tasks_alone(tmp_path: Path) -> None:
    store = Store(tmp_path)
    assert store.data_warnings() is None
    store.write_data_warnings(of(), ["a"])
    assert store.data_warnings() is None
    store.write_data_warnings(of(a="old", b="kept"), ["a", "b"])
    store.write_data_warnings(of(a="new"), ["a", "c"])
    found = store.data_warnings()
    assert found is not None
    assert found.to_pydict() == of(a="new", b="kept").to_pydict()
    store.write_data_warnings(of(), ["a", "b"])
    found = store.data_warnings()
    assert found is not None
    assert len(found) == 0


def test_a_file_that_is_none_is_named_and_left_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "data_warnings.parquet").write_bytes(b"PAR1 torn")
    with caplog.at_level(logging.WARNING):
        assert Store(tmp_path).data_warnings() is None
    assert "data_warnings.parquet does not hold warnings" in caplog.text


def test_a_storage_that_refuses_them_stops_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "data_warnings.parquet").mkdir()
    with caplog.at_level(logging.WARNING):
        Store(tmp_path).write_data_warnings(of(a="new"), ["a"])
    assert "could not be kept" in caplog.text
