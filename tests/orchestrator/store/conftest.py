"""Records to store, and a file system that fails when told to."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import pyarrow as pa
import pytest
from pyarrow.fs import FileSelector, FileSystemHandler, LocalFileSystem, PyFileSystem

from orchestrator.record import TrialRecord, TrialStatus
from trainables.outcome import EpochReport


def _record(trial_id: str = "t0", status: str = "completed", **changes: Any) -> TrialRecord:
    hyperparameters = {"learning_rate": 1e-3, "num_epochs": 2, "dropout": None, "precision": "auto", "adapter_size": 64}
    epochs = tuple(
        EpochReport(
            epoch=epoch,
            step=10 * epoch,
            train_loss=1 / epoch,
            validation_score=0.5 + epoch / 10,
            validation={"accuracy": 0.5 + epoch / 10, "loss": 1.5 / epoch},
            duration_s=2.5,
        )
        for epoch in (1, 2)
    )
    record = TrialRecord(
        sweep="quickstart",
        trial_id=trial_id,
        config_id=f"c-{trial_id}",
        task="toy/sentiment",
        backbone="minilm",
        method="adapter",
        seed=0,
        status=TrialStatus(status),
        hyperparameters=hyperparameters,
        trained_params=1234,
        metric="accuracy",
        validation_score=0.7,
        test_score=0.65,
        best_epoch=2,
        started_at="2025-01-02T03:04:05+00:00",
        provenance={"commit": "abc", "torch": "2.13.0"},
        validation={"accuracy": 0.7, "loss": 0.75},
        test={"accuracy": 0.65},
        epochs=epochs,
    )
    return dataclasses.replace(record, **changes)


@pytest.fixture(scope="session")
def record() -> Callable[..., TrialRecord]:
    """`record(trial_id, status, **fields)`: a record that is complete but for what is asked."""
    return _record


@pytest.fixture(scope="session")
def plan() -> pa.Table:
    return pa.table({"trial_id": ["t0", "t1"], "task": ["toy/sentiment", "toy/sentiment"]})


class FailingFileSystem(FileSystemHandler):
    """The local disk, of which the n-th change from now on fails, and all later ones. `after` None: none fails."""

    def __init__(self) -> None:
        self._disk = LocalFileSystem()
        self.after: int | None = None

    def _change(self) -> None:
        if self.after is not None:
            if self.after == 0:
                raise OSError("No space left on device")
            self.after -= 1

    def get_type_name(self) -> str:
        return "failing"

    def normalize_path(self, path: str) -> str:
        return path

    def get_file_info(self, paths: list[str]) -> Any:
        return self._disk.get_file_info(paths)

    def get_file_info_selector(self, selector: FileSelector) -> Any:
        return self._disk.get_file_info(selector)

    def create_dir(self, path: str, recursive: bool) -> None:
        self._disk.create_dir(path, recursive=recursive)

    def delete_dir(self, path: str) -> None:
        raise AssertionError("a store deletes no folder")

    def delete_dir_contents(self, path: str, missing_dir_ok: bool = False) -> None:
        raise AssertionError("a store deletes no folder")

    def delete_root_dir_contents(self) -> None:
        raise AssertionError("a store deletes no folder")

    def delete_file(self, path: str) -> None:
        self._change()
        self._disk.delete_file(path)

    def move(self, src: str, dest: str) -> None:
        self._change()
        self._disk.move(src, dest)

    def copy_file(self, src: str, dest: str) -> None:
        self._change()
        self._disk.copy_file(src, dest)

    def open_input_stream(self, path: str) -> Any:
        return self._disk.open_input_stream(path)

    def open_input_file(self, path: str) -> Any:
        return self._disk.open_input_file(path)

    def open_output_stream(self, path: str, metadata: Any) -> Any:
        self._change()
        return self._disk.open_output_stream(path)

    def open_append_stream(self, path: str, metadata: Any) -> Any:
        raise AssertionError("a store appends to no file")


@pytest.fixture
def failing() -> tuple[FailingFileSystem, PyFileSystem]:
    handler = FailingFileSystem()
    return handler, PyFileSystem(handler)
