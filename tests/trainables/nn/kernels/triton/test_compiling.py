"""The kernels are such as the compiler takes, for a GPU that need not be there."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest


@pytest.mark.timeout(300)  # ten seconds on a machine of one's own; then they lie in Triton's cache
def test_every_kernel_can_be_compiled() -> None:
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    command = [sys.executable, "-m", "tests.trainables.nn.kernels.triton.compiled_kernels"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
