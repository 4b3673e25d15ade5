from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from orchestrator.analysis.files import parquet_bytes
from orchestrator.store import Store
from trainables.faults import FaultsError


@pytest.fixture
def store(tmp_path: Path, plan: pa.Table) -> Store:
    store = Store(tmp_path / "store")
    store.create('{"name": "small"}', plan)
    return store


def test_files_of_a_trial_are_kept_in_a_folder_of_its_own_and_replaced_whole(store: Store, tmp_path: Path) -> None:
    assert store.keep_artifacts("t0", {"a.csv": b"1", "b.csv": b"2"}) == (
        f"{store.uri}/artifacts/t0/a.csv",
        f"{store.uri}/artifacts/t0/b.csv",
    )
    store.keep_artifacts("t0", {"a.csv": b"3"})
    folder = tmp_path / "store" / "artifacts" / "t0"
    assert {file.name: file.read_bytes() for file in folder.iterdir()} == {"a.csv": b"3", "b.csv": b"2"}


def test_all_ablations_are_one_table(store: Store) -> None:
    assert store.ablations() is None
    store.keep_artifacts("t1", {"ablation.parquet": parquet_bytes(pa.table({"trial_id": ["t1"], "x": [1]}))})
    store.keep_artifacts("t0", {"ablation-test.parquet": parquet_bytes(pa.table({"trial_id": ["t0"], "y": [2.0]}))})
    store.keep_artifacts("t0", {"other.parquet": b"not read", "ablation.csv": b"nor this"})
    found = store.ablations()
    assert found is not None
    assert found.to_pylist() == [{"trial_id": "t0", "y": 2.0, "x": None}, {"trial_id": "t1", "y": None, "x": 1}]


def test_a_torn_file_is_named_and_left_out(store: Store, caplog: pytest.LogCaptureFixture) -> None:
    store.keep_artifacts("t0", {"ablation.parquet": b"PAR1 torn"})
    store.keep_artifacts("t1", {"ablation.parquet": parquet_bytes(pa.table({"trial_id": ["t1"]}))})
    with caplog.at_level(logging.WARNING):
        found = store.ablations()
    assert found is not None
    assert found["trial_id"].to_pylist() == ["t1"]
    assert "artifacts/t0/ablation.parquet" in caplog.text


def test_a_place_that_cannot_be_written_is_a_fault(
    failing: tuple[Any, Any], tmp_path: Path, plan: Callable[..., Any]
) -> None:
    handler, filesystem = failing
    store = Store(str(tmp_path / "store"), filesystem=filesystem)
    store.create('{"name": "small"}', plan)
    handler.after = 0
    with pytest.raises(FaultsError, match="the store must be writable"):
        store.keep_artifacts("t0", {"a.csv": b"1"})
