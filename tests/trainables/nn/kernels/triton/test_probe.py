"""Where Triton is there and can build nothing, torch computes, and the log says once why."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from trainables.nn.kernels import triton
from trainables.nn.kernels.triton import probe

GPU = torch.device("cuda", 1)


@pytest.fixture(autouse=True)
def unknown() -> Iterator[None]:
    """As in a new process, nothing is known of any device."""
    triton.builds_for.cache_clear()
    yield
    triton.builds_for.cache_clear()


@pytest.fixture(name="launches")
def launches_fixture(monkeypatch: pytest.MonkeyPatch) -> list[torch.device]:
    """Where the probe was launched."""
    launches: list[torch.device] = []
    monkeypatch.setattr(probe, "launch", launches.append)
    monkeypatch.delenv("ADAPTUNE_TRITON", raising=False)
    return launches


def rows(device: torch.device = GPU, dtype: torch.dtype = torch.bfloat16) -> Any:
    return SimpleNamespace(device=device, dtype=dtype)


def refuse(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    def launch(device: torch.device) -> None:
        raise error

    monkeypatch.setattr(probe, "launch", launch)


def test_each_gpu_is_probed_once(launches: list[torch.device]) -> None:
    for device in (GPU, GPU, torch.device("cuda", 0)):
        assert triton.serves(rows(device))
    assert launches == [GPU, torch.device("cuda", 0)]


@pytest.mark.parametrize(
    ("asked", "wanted"),
    [(rows(torch.device("cpu")), None), (rows(dtype=torch.float16), None), (rows(), "0"), (rows(), "interpret")],
)
def test_nothing_is_probed_for_what_is_not_compiled(
    asked: Any, wanted: str | None, launches: list[torch.device], monkeypatch: pytest.MonkeyPatch
) -> None:
    if wanted is not None:
        monkeypatch.setenv("ADAPTUNE_TRITON", wanted)
    assert triton.serves(asked) is (wanted == "interpret")
    assert launches == []


def test_what_cannot_be_built_is_left_to_torch_with_one_warning(
    launches: list[torch.device], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    refuse(monkeypatch, RuntimeError("Failed to find C compiler. Please specify via CC environment variable."))
    with caplog.at_level(logging.WARNING):
        assert not triton.serves(rows())
        assert not triton.serves(rows())
    assert [record.message for record in caplog.records] == [
        "steps on cuda:1 are computed by torch alone, which is many times slower, since Triton could build no kernel: "
        "Failed to find C compiler. Please specify via CC environment variable; it needs a C compiler (gcc or clang), "
        "Python's headers (python3-dev) and a folder it can write to (TRITON_CACHE_DIR)"
    ]


@pytest.mark.parametrize(
    "error", [torch.OutOfMemoryError("CUDA out of memory."), RuntimeError("Triton Error [CUDA]: out of memory")]
)
def test_a_full_memory_is_no_judgement(
    error: Exception, launches: list[torch.device], monkeypatch: pytest.MonkeyPatch
) -> None:
    refuse(monkeypatch, error)
    with pytest.raises(type(error)):
        triton.serves(rows())
    monkeypatch.setattr(probe, "launch", launches.append)
    assert triton.serves(rows())


def test_the_probe_is_a_kernel_that_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[torch.Tensor] = []
    empty = torch.empty

    def kept(*given: Any, **named: Any) -> torch.Tensor:
        made.append(empty(*given, **named))
        return made[-1]

    monkeypatch.setattr(torch, "empty", kept)
    probe.launch(torch.device("cpu"))  # in the interpreter
    assert [tensor.tolist() for tensor in made] == [[1]]
