"""What the interpreter forgives, the compiler does not: it takes every kernel, and needs no GPU for that."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[5]


@pytest.mark.timeout(300)
@pytest.mark.thorough
def test_every_kernel_compiles_for_a_gpu_and_keeps_to_its_registers(tmp_path: Path) -> None:
    environment = {**os.environ, "TRITON_CACHE_DIR": str(tmp_path)}
    environment.pop("TRITON_INTERPRET")
    script = [sys.executable, "-m", "tests.trainables.nn.kernels.triton.compile_kernels"]
    ran = subprocess.run(script, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    compiled = [line.split() for line in ran.stdout.splitlines()]
    attention, adamw = {"forward", "backward_keys", "backward_queries"}, {"_sum_squares", "_update"}
    normalisation = {"_forward", "_backward", "_sum_strips"}
    bottleneck = {"_backward_rows", "_sum_sections", "_sum_trials"}
    others = {"_multiply", "_embed", "_mean", "_spread", "_write_one"}
    assert attention | adamw | normalisation | bottleneck | others <= {name for name, _, _ in compiled}
    for name, registers, spilt in compiled:
        assert int(registers) <= 255, name
        assert spilt == "0", f"{name} keeps {spilt} bytes of a thread in memory"
