"""Which devices can be trained on, and what is said of the others."""

from __future__ import annotations

import pytest
import torch

import trainables
from trainables.device.hardware import DeviceLostError, default_device, device_named, raise_if_lost
from trainables.engine.engine import Engine
from trainables.faults import FaultsError


def test_a_device_is_found_by_its_name_and_the_default_by_none(monkeypatch: pytest.MonkeyPatch) -> None:
    assert device_named("cpu") == torch.device("cpu")
    assert device_named(None) == default_device()
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert device_named("cuda:1") == torch.device("cuda", 1)


@pytest.mark.parametrize("name", ["mps", "xpu", "meta", "gpu", "", "cpu:x"])
def test_what_nothing_is_trained_on_is_refused_in_one_sentence(name: str) -> None:
    with pytest.raises(FaultsError, match="must be cpu, cuda or cuda:N, but is"):
        Engine(device=name)


@pytest.mark.parametrize(("count", "found"), [(0, "no GPU of CUDA here"), (2, "2 GPUs of CUDA here")])
def test_a_gpu_that_is_not_there_is_refused(monkeypatch: pytest.MonkeyPatch, count: int, found: str) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: count)
    with pytest.raises(FaultsError, match=found):
        device_named("cuda:7")


def test_a_saved_adapter_is_not_loaded_onto_another_device_either(tmp_path) -> None:
    with pytest.raises(FaultsError):
        trainables.load(tmp_path, device="mps")


def test_a_device_is_lost_where_it_answers_nothing_with_the_same_error(monkeypatch: pytest.MonkeyPatch) -> None:
    first = RuntimeError("CUDA error: an illegal memory access was encountered")

    def refuse(device: torch.device) -> None:
        raise first

    monkeypatch.setattr(torch.cuda, "synchronize", refuse)
    raise_if_lost(torch.device("cpu"), first)
    with pytest.raises(DeviceLostError, match="cuda:1 does nothing more for this process: CUDA error: an illegal"):
        raise_if_lost(torch.device("cuda:1"), first)


@pytest.mark.parametrize(
    "error", [None, torch.OutOfMemoryError("CUDA out of memory"), RuntimeError("CUDA error: out of memory")]
)
def test_a_device_that_goes_on_is_not_lost(monkeypatch: pytest.MonkeyPatch, error: Exception | None) -> None:
    def answer(device: torch.device) -> None:
        if error is not None:
            raise error

    monkeypatch.setattr(torch.cuda, "synchronize", answer)
    raise_if_lost(torch.device("cuda"), ValueError("the trial's own"))
