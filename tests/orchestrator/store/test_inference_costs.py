from __future__ import annotations

import logging
from pathlib import Path

import pyarrow as pa
import pytest

from orchestrator.store import Store
from orchestrator.store.inference_costs import SCHEMA
from trainables.faults import FaultsError


def of(method: str) -> pa.Table:
    row = {"method": method, "batch_size": 1, "latency_ms": 1.5, "config_ids": ["a", "b"]}
    return pa.Table.from_pylist([row], schema=SCHEMA)


def test_what_is_measured_again_takes_the_place_of_what_was(tmp_path: Path) -> None:
    store = Store(tmp_path)
    assert store.inference_costs() is None
    for method in ("lora", "adapter"):
        store.write_inference_costs(of(method))
        found = store.inference_costs()
        assert found is not None
        assert found.equals(of(method))


def test_a_file_that_is_none_is_named_and_left_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "inference_costs.parquet").write_bytes(b"PAR1 torn")
    with caplog.at_level(logging.WARNING):
        assert Store(tmp_path).inference_costs() is None
    assert "inference_costs.parquet does not hold costs of inference" in caplog.text


def test_a_place_that_cannot_be_written_is_a_fault(tmp_path: Path) -> None:
    (tmp_path / "inference_costs.parquet").mkdir()
    with pytest.raises(FaultsError, match="the store must be writable"):
        Store(tmp_path).write_inference_costs(of("lora"))
