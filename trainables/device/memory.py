"""Memory of one training: its peak, of the device or of the process where that is a CPU, and giving it back."""

from __future__ import annotations

import ctypes
import functools
import logging
import re
import sys
import traceback
from pathlib import Path

import torch

from trainables.device import container

# Of glibc's malloc.h.
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -3, -8
# What is said where no error class says it: by torch's allocator on a CPU, by CUDA itself as a graph is uploaded, by
# Triton as a kernel is loaded, and by the libraries of products (cuBLAS, cuDNN) as they take their workspace.
_OUT_OF_MEMORY = re.compile(
    r"can't allocate memory|(CUDA error|Triton Error \[CUDA\]): out of memory|CU[A-Z]+_STATUS_ALLOC_FAILED"
)
# What torch says of every release after a recording that could not be ended, in versions before 2.12.
_RECORDING_LEFT_OPEN = "captures_underway"

logger = logging.getLogger(__name__)


class PeakMemory:
    """The highest memory use of a device, or of the process where that is a CPU, since it was last read.

    Of a GPU it is that of tensors: neither what torch keeps for later ones nor what graphs keep for their replays.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._can_reset = True
        self.read()

    def read(self) -> int | None:
        """Bytes at the peak since the last call, from which a new one counts; None where the system cannot tell."""
        if self._device.type == "cuda":
            peak = torch.cuda.max_memory_allocated(self._device)
            torch.cuda.reset_peak_memory_stats(self._device)
            return peak
        found = _read_kilobytes("/proc/self/status", "VmHWM") if self._can_reset else None
        self._can_reset = _reset_peak()
        return found


def used_bytes(device: torch.device) -> int | None:
    """Memory in use now: of the device by this process, or of the process; None where the system cannot tell."""
    if device.type == "cuda":
        return torch.cuda.memory_allocated(device)
    return _read_kilobytes("/proc/self/status", "VmRSS")


def free_bytes(device: torch.device) -> int | None:
    """Memory that is free for trials now: the device's, or the machine's and no more than its container leaves.

    None where the system cannot tell.
    """
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    known = (_read_kilobytes("/proc/meminfo", "MemAvailable"), container.free_memory())
    return min((each for each in known if each is not None), default=None)


def wait_for(device: torch.device) -> None:
    """Until a device has done all that it was told to; a CPU always has."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory did not suffice; only torch's allocator on a GPU has a class for that."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and _OUT_OF_MEMORY.search(str(error)) is not None


def let_go_of(error: BaseException) -> None:
    """Free what the calls that an error broke hold, such as the activations of a step, while it is still handled.

    An error keeps the frames of those calls, and with them all their variables. Its traceback can be told afterwards as
    before.
    """
    told: set[int] = set()
    broke: BaseException | None = error
    while broke is not None and id(broke) not in told:
        told.add(id(broke))
        traceback.clear_frames(broke.__traceback__)
        broke = broke.__cause__ or broke.__context__


def _reset_peak() -> bool:
    """Ask Linux to count the process's peak resident memory from now; False where it cannot."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return False
    return True


def _read_kilobytes(path: str, name: str) -> int | None:
    """A line "name: 123 kB" of one of Linux's own files, in bytes."""
    try:
        found = re.search(rf"{name}:\s+(\d+) kB", Path(path).read_text())
    except OSError:
        return None
    return int(found[1]) * 1024 if found else None


def keep_freed_memory() -> None:
    """Have the C library keep what tensors free, for the next ones.

    By default it hands large blocks back at once, and the system clears every page of the next tensor anew: a tenth of
    a training step on a CPU. `release_unused` still hands everything back.
    """
    if sys.platform == "linux":
        set_option = getattr(ctypes.CDLL(None), "mallopt", None)  # glibc's
        if set_option is not None:
            for option, value in ((_M_MMAP_THRESHOLD, 32 * 2**20), (_M_TRIM_THRESHOLD, 2**31 - 1), (_M_ARENA_MAX, 1)):
                set_option(option, value)


def release_unused() -> None:
    """Hand memory that a trial has freed back to the system.

    Batches differ in length, so the C library's heap ends up full of holes and an engine would grow with every trial.
    """
    if torch.cuda.is_initialized():
        _release_on_gpu()
    if sys.platform == "linux":
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc's; others keep no such heap
        if trim is not None:
            trim(0)


def _release_on_gpu() -> None:
    try:
        torch.cuda.empty_cache()
    except RuntimeError as error:
        if _RECORDING_LEFT_OPEN not in str(error):
            raise
        _warn_of_what_stays()


@functools.cache
def _warn_of_what_stays() -> None:
    """Once a process, since it comes again with every release."""
    logger.warning(
        "torch hands no memory of the GPU back until this process ends, since a step could not be captured: torch 2.12 "
        "mends that, and with ADAPTUNE_GRAPHS=0 no step is captured"
    )
