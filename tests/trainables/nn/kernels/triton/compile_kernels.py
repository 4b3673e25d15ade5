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
import torch.nn.functional as F
import triton
from triton import knobs
from triton.backends.compiler import GPUTarget
from triton.runtime.jit import JITFunction

from tests.trainables.nn.kernels.conftest import Batch, lay_out
from tests.trainables.nn.kernels.test_operations import KERNELS
from trainables.nn.kernels.adamw import adamw_
from trainables.nn.kernels.attention import attend, attend_first
from trainables.nn.kernels.bottleneck import add_bottleneck
from trainables.nn.kernels.layernorm import dropout_residual_layernorm, residual_layernorm
from trainables.nn.kernels.pooling import mean
from trainables.nn.kernels.triton import probe
from trainables.nn.kernels.triton.embedding import embed


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


def rows_in_bf16(batch: Batch) -> None:
    """What a step of adapters launches beside attention, of a width that is no power of two."""
    num_trials, width = len(batch.lengths_KB), 384
    rows = torch.zeros(batch.num_rows, width, dtype=torch.bfloat16, requires_grad=True)
    weight, bias = (torch.zeros(num_trials, width, dtype=torch.bfloat16, requires_grad=True) for _ in range(2))
    dropout_residual_layernorm(rows, rows, weight, bias, 1e-12, batch.keys, 3).sum().backward()
    residual_layernorm(rows, None, weight[0].detach(), bias[0].detach(), 1e-12).sum().backward()
    for size in (8, 128):
        down, up = torch.zeros(num_trials, width, size), torch.zeros(num_trials, size, width)
        weights = [each.bfloat16().requires_grad_() for each in (down, down[:, 0], up, up[:, 0])]
        add_bottleneck(rows, rows, (weights[0], weights[1], weights[2], weights[3]), 1.0, F.gelu).sum().backward()
    mean(rows, batch.keys.places_N.long(), batch.sequences).sum().backward()
    numbers = torch.zeros(batch.num_rows, dtype=torch.int64)
    tables = (rows.detach(),) * 3
    embed(numbers, numbers, numbers, tables, 0, weight[0], bias[0], 1e-12, (batch.keys, 0, batch.keys.rates_K))


def adamw_with_a_copy_in_bf16() -> None:
    values = [torch.zeros(2, 5000) for _ in range(4)]
    numbers = torch.zeros(3, 2, dtype=torch.float64)
    adamw_(
        *values,
        num_decayed=7,
        rates_K=numbers[0],
        decays_K=numbers[1],
        max_norms_K=numbers[2],
        steps_K=torch.ones(2, dtype=torch.int64),
        seen_KP=values[0].bfloat16(),
    )


def main() -> None:
    triton.runtime.driver.set_active(Driver())
    JITFunction.run = compile_only
    probe.launch(torch.device("cpu"))
    attend_in_bf16([13, 9], is_first=False)
    attend_in_bf16([65, 1], is_first=False)  # keys in several blocks
    attend_in_bf16([13, 9], is_first=True)
    batch = lay_out([[12, 5, 9]] * 2, [0.1] * 2)
    rows_in_bf16(batch)
    adamw_with_a_copy_in_bf16()
    for name, compute in KERNELS.items():
        if not name.startswith("attend"):
            compute(batch).sum().backward()


if __name__ == "__main__":
    main()
