"""Compile the kernels as they are launched, for an H100 that is not there; writes their names, registers, spilt bytes.

A process of its own, because kernels that were defined for the interpreter cannot be compiled.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

os.environ["ADAPTUNE_TRITON"] = "interpret"  # that is, serve rows on a CPU

import torch
import triton
from triton import knobs
from triton.backends.compiler import GPUTarget
from triton.runtime.jit import JITFunction

from tests.trainables.nn.kernels.conftest import lay_out
from tests.trainables.nn.kernels.test_operations import KERNELS
from trainables.nn.kernels.attention import attend, attend_first


class Driver:
    """Of a GPU that says what it is and can do nothing."""

    def get_current_target(self) -> GPUTarget:
        return GPUTarget("cuda", 90, 32)

    def get_current_device(self) -> int:
        return 0

    def get_current_stream(self, device: int) -> int:
        return 0


_run = JITFunction.run


def compile_only(self: JITFunction, *args: Any, grid: Any, warmup: bool, **named: Any) -> Any:
    kernel = _run(self, *args, grid=grid, warmup=True, **named)
    registers, spilt = _registers_and_spilt_bytes(kernel.asm["ptx"])
    sys.stdout.write(f"{self.__name__} {registers} {spilt}\n")
    return kernel


def _registers_and_spilt_bytes(assembly: str) -> tuple[int, int]:
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder, "kernel.ptx")
        source.write_text(assembly)
        command = [knobs.nvidia.ptxas.path, "-v", "--gpu-name=sm_90a", source, "-o", Path(folder, "kernel.cubin")]
        said = subprocess.run(command, capture_output=True, text=True, check=True).stderr
    registers, spilt = re.search(r"Used (\d+) registers", said), re.search(r"(\d+) bytes spill stores", said)
    assert registers is not None
    assert spilt is not None
    return int(registers[1]), int(spilt[1])


def attend_in_bf16(lengths: list[int], *, is_first: bool) -> None:
    batch = lay_out([lengths], [0.1])
    qkv = torch.zeros(batch.num_rows, 3 * 64, dtype=torch.bfloat16, requires_grad=True)
    query, key, value = qkv.chunk(3, dim=1)
    if is_first:
        attended = attend_first(query[: len(lengths)], key, value, 2, batch.sequences, batch.keys, 1)
    else:
        attended = attend(qkv, 2, batch.sequences, batch.keys, 1)
    attended.sum().backward()


def main() -> None:
    triton.runtime.driver.set_active(Driver())
    JITFunction.run = compile_only
    attend_in_bf16([13, 9], is_first=False)
    attend_in_bf16([65, 1], is_first=False)  # keys in several blocks
    attend_in_bf16([13, 9], is_first=True)
    batch = lay_out([[12, 5, 9]] * 2, [0.1] * 2)
    for name, compute in KERNELS.items():
        if not name.startswith("attend"):
            compute(batch).sum().backward()


if __name__ == "__main__":
    main()
