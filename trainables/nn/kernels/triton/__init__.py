"""The kernels in Triton, for a GPU; each has its reference in torch in the module of its name one floor up.

Triton comes with torch where torch has CUDA. Elsewhere it is needed only by the tests, which run these kernels in its
interpreter on a CPU. `ADAPTUNE_TRITON` is 0 where the same arithmetic shall run in torch, and "interpret" where these
kernels shall serve rows on a CPU too.
"""

from __future__ import annotations

import functools
import importlib.util
import logging
import os

import torch
from torch import Tensor

logger = logging.getLogger(__name__)


def serves(rows: Tensor) -> bool:
    """Whether the kernels of this package are to work on such rows: bf16 or float32, on a GPU of CUDA."""
    if rows.dtype not in (torch.bfloat16, torch.float32):
        return False
    wanted = os.environ.get("ADAPTUNE_TRITON")
    if wanted == "0":
        return False
    served = ("cuda", "cpu") if wanted == "interpret" else ("cuda",)
    return rows.device.type in served and is_installed()


@functools.cache
def is_installed() -> bool:
    """Whether Triton can be imported; a line in the log where it cannot."""
    if importlib.util.find_spec("triton") is None:
        logger.warning("steps on the GPU are computed by torch alone, which is many times slower: no Triton was found")
        return False
    return True
