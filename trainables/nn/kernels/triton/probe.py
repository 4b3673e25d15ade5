"""The smallest kernel, launched to learn whether Triton can build any for a device."""

from __future__ import annotations

import torch
import triton
import triton.language as tl


def launch(device: torch.device) -> None:
    """Build a kernel and have it write a number; raises whatever keeps Triton from it."""
    if device.type != "cuda":
        return _launch(device)
    with torch.cuda.device(device):  # which is where Triton launches
        return _launch(device)


def _launch(device: torch.device) -> None:
    _write_one[(1,)](torch.empty(1, dtype=torch.int32, device=device))


@triton.jit
def _write_one(out):
    tl.store(out, 1)
