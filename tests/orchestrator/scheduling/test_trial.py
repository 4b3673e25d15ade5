"""The light trainable: what its process must not pay for."""

from __future__ import annotations

import subprocess
import sys

import pytest


@pytest.mark.thorough
def test_a_trials_process_imports_no_torch() -> None:
    code = "import orchestrator.scheduling.trial, sys; print({'torch', 'transformers', 'datasets'} & {*sys.modules})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
