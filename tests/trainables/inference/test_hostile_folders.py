"""A folder that a stranger wrote: its faults are one clear error, before memory is taken or a file elsewhere read."""

from __future__ import annotations

import json
import os
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file

import trainables
from tests.factories import trial_config
from trainables.backbones.loading import Backbone
from trainables.faults import FaultsError
from trainables.inference.saved_adapter import save
from trainables.task import TaskInfo
from trainables.training.model import build_model

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"


@pytest.fixture
def folder(tmp_path: Path, tiny_bert: Path, backbone: Backbone) -> Path:
    """A saved adapter."""
    task = TaskInfo(
        name="t", kind="classification", pair=False, num_labels=2, label_names=("a", "b"), metric="accuracy", source="x"
    )
    config = trial_config("adapter", backbone=str(tiny_bert), max_length=16)
    model = build_model(backbone.encoder, [config], 2)
    place, fingerprint = tmp_path / "adapter", str(backbone.info.fingerprint)
    save(place, model, config, task, backbone_fingerprint=fingerprint, scores={"validation/accuracy": 0.5})
    return place


def about(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / CONFIG).read_text())
    return found


def changed(folder: Path, *path: str, value: Any) -> None:
    """Write another value in the configuration, and no hash of the weights."""
    values = about(folder)
    values.pop("weights_sha256", None)
    place = values
    for name in path[:-1]:
        place = place[name]
    place[path[-1]] = value
    (folder / CONFIG).write_text(json.dumps(values))


def with_weights(folder: Path, change: Callable[[dict[str, np.ndarray]], None]) -> None:
    tensors = load_file(folder / WEIGHTS)
    change(tensors)
    save_file(tensors, folder / WEIGHTS)
    changed(folder, "library", value="adaptune")


@pytest.mark.parametrize(
    ("path", "value", "fault"),
    [
        (("task", "num_labels"), 10**12, "must be as many as labels, but are 2 for 1000000000000"),
        (("task", "num_labels"), -1, "task.num_labels must be at least 1"),
        (("task", "num_labels"), "2", "task.num_labels must be a whole number, but got '2'"),
        (("task", "label_names"), ["a"], "must be as many as labels, but are 1 for 2"),
        (("task", "label_names"), [1, 2], "task.label_names must be texts"),
        (("task", "kind"), "magic", "unknown kind of task 'magic'"),
        (("task", "metric"), "magic", "unknown metric 'magic'"),
        (("task", "extra"), 1, "task must have the keys"),
        (("task",), [], "task must be a mapping"),
        (("scores",), {"a": "b"}, "scores must map names to numbers"),
        (("trial_config",), "x", "trial_config must be a mapping, but got 'x'"),
        (("trial_config", "method"), "../../etc", "unknown method '../../etc'"),
        (("trial_config", "method_options"), {"adapter_size": 10**9}, "must be in [1, 16]"),
        (("trial_config", "method_options"), {"adapter_size": 5}, "the method's sizes, but encoder.layers.0."),
        (("trial_config", "max_length"), 10**6, "max_length: must be at most 32"),
        (("trial_config", "backbone"), "../../../etc", "must hold a config.json, but ../../../etc does not"),
        (("format_version",), 99, "format_version must be 1 or 2"),
    ],
)
def test_a_configuration_is_checked_before_it_is_believed(
    folder: Path, path: tuple[str, ...], value: Any, fault: str
) -> None:
    changed(folder, *path, value=value)
    with pytest.raises(FaultsError) as caught:
        trainables.load(folder)
    assert fault in str(caught.value)
    assert len(str(caught.value)) < 1000


def test_a_head_takes_no_more_memory_than_the_file_has(folder: Path) -> None:
    changed(folder, "task", value=about(folder)["task"] | {"num_labels": 10**12, "label_names": []})
    with pytest.raises(FaultsError, match="the head must have the task's 1000000000000 outputs, but its bias is 2"):
        trainables.load(folder)


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        (b"[" * 100_000, "must hold adapter_config.json"),
        (b"[]", "adapter_config.json is no JSON object"),
        (b"{" + b" " * 2**20 + b"}", "more than the 1,048,576 that it may have"),
        (b"\xff", "must hold adapter_config.json"),
        (b"{}", "trial_config is required"),
    ],
)
def test_a_configuration_that_is_none_is_refused(folder: Path, content: bytes, fault: str) -> None:
    if content == b"{}":
        content = b'{"format_version": 2}'
    (folder / CONFIG).write_bytes(content)
    with pytest.raises(FaultsError) as caught:
        trainables.load(folder)
    assert fault in str(caught.value)


def header(**tensors: Any) -> bytes:
    text = json.dumps(tensors).encode()
    return struct.pack("<Q", len(text)) + text


WHOLE = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        (b"", "longer than the file"),
        (struct.pack("<Q", 2**63) + b"{}", "longer than the file"),
        (struct.pack("<Q", 5 * 2**20) + b" " * 6 * 2**20, "longer than the file, or than any adapter's"),
        (struct.pack("<Q", 2) + b"[]", "header that is no JSON object"),
        (header(**{"head.bias": 1}), "without the shape of head.bias"),
        (header(**{"head.bias": {**WHOLE, "shape": [-1]}}), "without the shape of head.bias"),
        (header(**{"head.bias": {**WHOLE, "dtype": "C64"}}), "as 'C64', not as numbers"),
        (header(**{"head.bias": {**WHOLE, "shape": [2**40]}}), "which the file cannot hold"),
        (header(other=WHOLE) + b"\0" * 8, "there is no head.bias"),
        (header(**{"head.bias": WHOLE}) + b"\0" * 8, "must hold the method's tensors"),
    ],
)
def test_weights_are_looked_at_before_they_are_read(folder: Path, content: bytes, fault: str) -> None:
    changed(folder, "library", value="adaptune")
    (folder / WEIGHTS).write_bytes(content)
    with pytest.raises(FaultsError) as caught:
        trainables.load(folder)
    assert fault in str(caught.value)


def test_weights_of_other_sizes_or_that_are_no_numbers_are_refused(folder: Path) -> None:
    def swap(tensors: dict[str, np.ndarray]) -> None:
        tensors["head.weight"] = np.ascontiguousarray(tensors["head.weight"].T)

    def poison(tensors: dict[str, np.ndarray]) -> None:
        tensors["head.weight"] = tensors["head.weight"].T.copy()
        tensors["head.weight"][0, 0] = np.inf

    with_weights(folder, swap)
    with pytest.raises(FaultsError, match=r"head\.weight is 2x16 instead of 16x2"):
        trainables.load(folder)
    with_weights(folder, poison)
    with pytest.raises(FaultsError, match=r"must hold finite numbers, but does not in head\.weight"):
        trainables.load(folder)


def test_weights_that_are_not_those_that_were_written_are_refused(folder: Path) -> None:
    content = bytearray((folder / WEIGHTS).read_bytes())
    content[-1] ^= 1
    (folder / WEIGHTS).write_bytes(content)
    with pytest.raises(FaultsError, match="must be as it was written"):
        trainables.load(folder)


def test_nothing_outside_the_folder_is_read(folder: Path, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.mkdir()
    (secret / "file").write_text("secret")
    values = about(folder)
    config = values["trial_config"] | {"method": "adapter_fusion", "method_options": {"adapters": str(secret)}}
    changed(folder, "trial_config", value=config)
    with pytest.raises(FaultsError, match="must be in references/adapters, but there are none; nothing outside"):
        trainables.load(folder)
    (folder / "references" / "adapters").mkdir(parents=True)
    (folder / "references" / "adapters" / "0-a").symlink_to(secret)
    with pytest.raises(FaultsError, match="references/adapters/0-a must be a file of the folder, but is a link out"):
        trainables.load(folder)


def test_an_adapter_that_is_sound_is_loaded_after_all(folder: Path) -> None:
    assert trainables.load(folder).predict(["good"])[0] in ("a", "b")
    assert torch.isfinite(trainables.load(folder).model.head.weight).all()


@pytest.mark.parametrize("name", [CONFIG, WEIGHTS])
def test_a_pipe_is_not_read(folder: Path, name: str) -> None:
    (folder / name).unlink()
    os.mkfifo(folder / name)
    with pytest.raises(FaultsError, match=f"{name} is a pipe, a socket or a device and not a file"):
        trainables.load(folder)
