"""The kernels in Triton, for a GPU; each has its reference in torch in the module of its name one floor up.

Triton comes with torch where torch has CUDA. Elsewhere it is needed only by the tests, which run these kernels in its
interpreter on a CPU. `ADAPTUNE_TRITON` is 0 where the same arithmetic shall run in torch, and "interpret" where these
kernels shall serve rows on a CPU too.

On a GPU Triton compiles at the first launch, for which it needs a C compiler, Python's headers and a folder to keep
what it built. One small kernel is tried, and where that cannot be built torch computes instead.
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
    if wanted == "interpret":
        return rows.device.type in ("cuda", "cpu") and is_installed()
    return rows.device.type == "cuda" and is_installed() and builds_for(rows.device)


@functools.cache
def is_installed() -> bool:
    """Whether Triton can be imported; a line in the log where it cannot."""
    if importlib.util.find_spec("triton") is None:
        logger.warning("steps on the GPU are computed by torch alone, which is many times slower: no Triton was found")
        return False
    return True


@functools.cache
def builds_for(device: torch.device) -> bool:
    """Whether Triton can build kernels for a GPU, found out once by one; a line in the log that says why it cannot.

    Raises what says that the GPU's memory did not suffice, which may be another time.
    """
    try:
        from trainables.nn.kernels.triton import probe

        probe.launch(device)
    except Exception as error:  # of a compiler, a linker, a file system, a driver: each has its own
        if "out of memory" in str(error):
            raise
        logger.warning(
            "steps on %s are computed by torch alone, which is many times slower, since Triton could build no kernel: "
            "%s; it needs a C compiler (gcc or clang), Python's headers (python3-dev) and a folder it can write to "
            "(TRITON_CACHE_DIR)",
            device,
            " ".join(str(error).split()).rstrip(".") or repr(error),
        )
        return False
    return True
