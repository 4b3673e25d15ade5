"""The kernels in C, compiled for this machine when they are first asked for.

They need nothing but a C compiler, and know nothing of torch: they are called with addresses. Where there is no
compiler, where nothing can be written to the cache, or with `ADAPTUNE_NATIVE=0`, the same arithmetic runs in torch.
"""

from __future__ import annotations

import ctypes
import functools
import hashlib
import logging
import os
import platform
import shutil
import subprocess
import tempfile
from pathlib import Path

import torch
from torch import Tensor

from trainables.cache import cache_folder

logger = logging.getLogger(__name__)

_SOURCES = Path(__file__).parent / "c"
# Nothing that would let the compiler assume that all numbers are finite, or reorder sums.
_FLAGS = ("-O3", "-std=gnu11", "-fPIC", "-shared", "-fno-math-errno", "-fno-trapping-math", "-ffp-contract=fast")
_QUIET = ("-Wno-psabi",)
_COMPILE_TIMEOUT_S = 120


class Keys(ctypes.Structure):
    """`Keys` of philox.h."""

    _fields_ = (
        ("seeds", ctypes.c_void_p),
        ("steps", ctypes.c_void_p),
        ("rates", ctypes.c_void_p),
        ("places", ctypes.c_void_p),
        ("positions", ctypes.c_void_p),
        ("site", ctypes.c_uint32),
    )


class Attention(ctypes.Structure):
    """`Attention` of attention.c."""

    _fields_ = (
        ("is_bf16", ctypes.c_int),
        ("is_first", ctypes.c_int),
        ("num_sequences", ctypes.c_int64),
        ("num_trials", ctypes.c_int64),
        ("num_heads", ctypes.c_int64),
        ("width", ctypes.c_int64),
        ("longest", ctypes.c_int64),
        ("num_queries", ctypes.c_int64),
        ("num_rows", ctypes.c_int64),
        ("starts", ctypes.c_void_p),
        ("lengths", ctypes.c_void_p),
        ("query", ctypes.c_void_p),
        ("key", ctypes.c_void_p),
        ("value", ctypes.c_void_p),
        ("query_step", ctypes.c_int64),
        ("key_step", ctypes.c_int64),
        ("value_step", ctypes.c_int64),
        ("largest", ctypes.c_void_p),
        ("inverse", ctypes.c_void_p),
        ("keys", ctypes.POINTER(Keys)),
    )


def library_for(rows: Tensor) -> ctypes.CDLL | None:
    """The compiled kernels, where they can work on such rows: bf16 or float32 on a CPU."""
    if rows.device.type != "cpu" or rows.dtype not in (torch.bfloat16, torch.float32):
        return None
    return library()


def library() -> ctypes.CDLL | None:
    """The compiled kernels, or None with a line in the log that says why there are none."""
    return load(is_off=os.environ.get("ADAPTUNE_NATIVE") == "0")


@functools.cache
def load(*, is_off: bool) -> ctypes.CDLL | None:
    """What `library` gives, found out once."""
    if is_off:
        logger.info("steps are computed by torch alone: ADAPTUNE_NATIVE is 0")
        return None
    compiler = next((path for name in ("cc", "gcc", "clang") if (path := shutil.which(name))), None)
    if compiler is None:
        logger.info("steps are computed by torch alone, which is slower: no C compiler (cc, gcc or clang) was found")
        return None
    try:
        loaded = ctypes.CDLL(str(_build(compiler)))
    except (OSError, RuntimeError, subprocess.SubprocessError) as error:  # RuntimeError: the user has no home
        reason = getattr(error, "stderr", None) or error
        logger.info("steps are computed by torch alone, which is slower: no kernels were compiled: %s", reason)
        return None
    return _declare(loaded)


def cache() -> Path:
    """Where compiled kernels are kept."""
    return cache_folder() / "native"


def addresses(*tensors: Tensor | None) -> list[int | None]:
    """Where the numbers of contiguous tensors lie; NULL for those that are None."""
    return [None if tensor is None else tensor.data_ptr() for tensor in tensors]


def check(code: int) -> None:
    """Raise the error of a kernel that found too little memory."""
    if code:
        raise MemoryError("a kernel found no memory for its rows")


def _build(compiler: str) -> Path:
    """The library in the cache, compiled if it is not there."""
    sources = sorted(_SOURCES.glob("*.[ch]"))
    digest = hashlib.sha256(f"{_run([compiler, '--version'], 10)}\n{_cpu()}\n{_FLAGS}".encode())
    for source in sources:
        digest.update(source.read_bytes())
    folder = cache()
    built = folder / f"{digest.hexdigest()[:24]}.so"
    if built.exists():
        return built
    folder.mkdir(parents=True, exist_ok=True)
    # Under a name of its own, and then moved: another process may be compiling the same.
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        target = Path(scratch) / "kernels.so"
        files = [str(source) for source in sources if source.suffix == ".c"]
        command = [compiler, *_FLAGS, *_QUIET, *files, "-o", str(target), "-lm"]
        try:
            _run([*command, "-march=native"], _COMPILE_TIMEOUT_S)
        except subprocess.CalledProcessError:  # some compilers know the flag by another name
            _run(command, _COMPILE_TIMEOUT_S)
        os.replace(target, built)
    return built


def _run(command: list[str], timeout_s: float) -> str:
    return subprocess.run(command, capture_output=True, check=True, text=True, timeout=timeout_s).stdout


def _cpu() -> str:
    """What `-march=native` follows from."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return f"{platform.machine()} {platform.processor()}"
    telling = ("model name", "flags", "CPU part", "Features")
    return platform.machine() + "\n".join(sorted({line for line in lines if line.startswith(telling)}))


def _declare(loaded: ctypes.CDLL) -> ctypes.CDLL:
    """Say what each kernel takes, so that addresses are passed whole."""
    flag, size, pointer, single, double = (
        ctypes.c_int,
        ctypes.c_int64,
        ctypes.c_void_p,
        ctypes.c_float,
        ctypes.c_double,
    )
    keys = ctypes.POINTER(Keys)
    rows = [flag, size, size, size]
    loaded.dropout_rows.argtypes = [*rows, pointer, pointer, keys]
    loaded.layernorm_forward.argtypes = [
        *rows, pointer, pointer, pointer, size, pointer, size, single, pointer, pointer, pointer, keys,
    ]  # fmt: skip
    loaded.layernorm_backward.argtypes = [
        *rows, pointer, pointer, pointer, pointer, size, pointer, pointer, pointer, pointer, keys,
    ]  # fmt: skip
    loaded.attention_forward.argtypes = [ctypes.POINTER(Attention), pointer]
    loaded.attention_backward.argtypes = [ctypes.POINTER(Attention), pointer, pointer, pointer, pointer, size, size]
    loaded.look_up.argtypes = [size] + [pointer] * 3
    loaded.look_up.restype = None
    loaded.look_up_and_multiply.argtypes = [size] + [pointer] * 4
    loaded.look_up_and_multiply.restype = None
    loaded.adamw.argtypes = [size] * 3 + [pointer] * 9 + [double] * 3
    loaded.adamw.restype = None
    return loaded
