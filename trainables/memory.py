"""Memory of one training: its peak, of the device or of the process where that is a CPU, and giving it back."""

from __future__ import annotations

import ctypes
import re
import sys
from pathlib import Path
from types import TracebackType

import torch


class PeakMemory:
    """Measures the highest use between enter and exit; `peak_bytes` is None where the system cannot tell."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.peak_bytes: int | None = None

    def __enter__(self) -> PeakMemory:
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)
        else:
            self._reset = _reset_peak()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.device.type == "cuda":
            self.peak_bytes = torch.cuda.max_memory_allocated(self.device)
        elif self._reset:
            self.peak_bytes = _peak_resident()


def _reset_peak() -> bool:
    """Ask Linux to count the process's peak resident memory from now; False where it cannot."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return False
    return True


def _peak_resident() -> int | None:
    found = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    return int(found[1]) * 1024 if found else None


def release_unused() -> None:
    """Hand memory that a trial has freed back to the system.

    Batches differ in length, so the C library's heap ends up full of holes and an engine would grow with every trial.
    """
    if sys.platform == "linux":
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc's; others keep no such heap
        if trim is not None:
            trim(0)
