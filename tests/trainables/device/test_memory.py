"""Memory: a peak that counts anew at each reading, what is free, and what says that it did not suffice."""

from __future__ import annotations

import logging
import sys
import traceback
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from trainables.device import memory
from trainables.device.memory import (
    PeakMemory,
    free_bytes,
    is_out_of_memory,
    keep_freed_memory,
    let_go_of,
    release_unused,
    used_bytes,
)

CPU = torch.device("cpu")
MIB = 2**20


def touch(mebibytes: int) -> None:
    torch.ones(mebibytes * MIB, dtype=torch.uint8)


def test_a_peak_is_seen_after_it_is_over_and_forgotten_once_read() -> None:
    peak = PeakMemory(CPU)
    touch(200)
    release_unused()
    high, low = peak.read(), peak.read()
    if sys.platform == "linux" and peak._can_reset:
        assert high is not None
        assert low is not None
        assert high - low > 150 * MIB
        assert low > 50 * MIB  # the process itself
    else:
        assert (high, low) == (None, None)


def test_a_peak_that_cannot_be_reset_is_not_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "_reset_peak", lambda: False)
    peak = PeakMemory(CPU)
    assert peak.read() is None


def test_memory_in_use_grows_with_what_is_held() -> None:
    before = used_bytes(CPU)
    held = torch.ones(100 * MIB, dtype=torch.uint8)
    after = used_bytes(CPU)
    if sys.platform == "linux":
        assert before is not None
        assert after is not None
        assert 80 * MIB < after - before < 200 * MIB
    assert held.sum().item() == 100 * MIB


def test_free_memory_is_the_machine_s(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    lines = {"MemTotal": 900, "MemFree": 100, "MemAvailable": 500}
    meminfo = tmp_path / "meminfo"
    meminfo.write_text("".join(f"{name}:    {value} kB\n" for name, value in lines.items()))
    real = memory._read_kilobytes
    monkeypatch.setattr(memory.container, "free_memory", lambda: None)
    monkeypatch.setattr(memory, "_read_kilobytes", lambda path, name: real(str(meminfo), name))
    assert free_bytes(CPU) == 500 * 1024  # what caches would give back counts as free
    meminfo.unlink()
    assert free_bytes(CPU) is None


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (MemoryError(), True),
        (torch.OutOfMemoryError("CUDA out of memory."), True),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), False),
        (ValueError("can't allocate memory"), False),
        (RuntimeError("CUDA error: out of memory\nCUDA kernel errors might be reported at some other call"), True),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"), True),
        (RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"), True),
        (RuntimeError("Triton Error [CUDA]: out of memory"), True),
        (RuntimeError("CUDA error: an illegal memory access was encountered"), False),
        (RuntimeError("CUDA error: CUBLAS_STATUS_EXECUTION_FAILED when calling `cublasGemmEx`"), False),
        (ValueError("CUDA error: out of memory"), False),
    ],
)
def test_only_a_lack_of_memory_is_one(error: Exception, expected: bool) -> None:
    assert is_out_of_memory(error) == expected


def test_what_an_error_holds_is_let_go_of_and_its_traceback_is_told_as_before() -> None:
    made: list[weakref.ref[torch.Tensor]] = []

    def breaks() -> None:
        tensor = torch.ones(3)
        made.append(weakref.ref(tensor))
        raise MemoryError("not enough")

    def breaks_again() -> None:
        try:
            breaks()
        except MemoryError as first:
            raise RuntimeError("and so this") from first

    with pytest.raises(RuntimeError) as broke:
        breaks_again()
    before = traceback.format_exception(broke.value)
    assert made[0]() is not None
    let_go_of(broke.value)
    assert made[0]() is None
    assert traceback.format_exception(broke.value) == before


def test_the_cpu_s_own_refusal_is_understood() -> None:
    with pytest.raises(RuntimeError) as refusal:
        torch.empty(2**60)
    assert is_out_of_memory(refusal.value)


def test_keeping_and_releasing_leave_tensors_as_they_were() -> None:
    keep_freed_memory()
    kept = torch.arange(MIB)
    touch(50)
    release_unused()
    assert torch.equal(kept, torch.arange(MIB))


def test_released_memory_goes_back_to_the_system() -> None:
    keep_freed_memory()
    blocks = [torch.ones(MIB, dtype=torch.uint8) for _ in range(200)]  # small enough to be of the heap
    held = used_bytes(CPU)
    blocks.clear()
    release_unused()
    left = used_bytes(CPU)
    if sys.platform == "linux":
        assert held is not None
        assert left is not None
        assert held - left > 150 * MIB
    assert not blocks


@pytest.fixture(name="releases")
def releases_fixture(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], None]]:
    """Has every release on a GPU fail with a message."""

    def fail_with(message: str) -> None:
        def empty_cache() -> None:
            raise RuntimeError(message)

        monkeypatch.setattr(torch.cuda, "empty_cache", empty_cache)

    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    memory._warn_of_what_stays.cache_clear()
    yield fail_with
    memory._warn_of_what_stays.cache_clear()


def test_a_recording_that_was_left_open_ends_no_pack_and_is_told_of_once(
    releases: Callable[[str], None], caplog: pytest.LogCaptureFixture
) -> None:
    releases('captures_underway.empty() INTERNAL ASSERT FAILED at "CUDACachingAllocator.cpp":3941')
    with caplog.at_level(logging.WARNING):
        release_unused()
        release_unused()
    (record,) = caplog.records
    assert "torch 2.12 mends that, and with ADAPTUNE_GRAPHS=0 no step is captured" in record.message


def test_what_else_a_release_says_is_raised(releases: Callable[[str], None]) -> None:
    releases("CUDA error: an illegal memory access was encountered")
    with pytest.raises(RuntimeError, match="illegal memory access"):
        release_unused()
