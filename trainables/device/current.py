"""Which GPU a thread works on. Triton launches on the thread's current one, wherever the tensors lie that it is given.

A device that is called "cuda", without a number, is the current one already.
"""

from __future__ import annotations

import contextlib
from contextlib import AbstractContextManager

import torch


def work_on(device: torch.device) -> None:
    """Have this thread work on a device from now on."""
    if _is_numbered(device):
        torch.cuda.set_device(device)


def working_on(device: torch.device) -> AbstractContextManager[None, None]:
    """A context in which this thread works on a device; afterwards on the one that it worked on before."""
    return torch.cuda.device(device) if _is_numbered(device) else contextlib.nullcontext()


def _is_numbered(device: torch.device) -> bool:
    return device.type == "cuda" and device.index is not None
