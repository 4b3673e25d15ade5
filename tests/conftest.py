"""Where the tests' fixtures come from: `tests/fixtures.py`, in every process that runs tests."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

# Triton decides as it is imported, which torch may do long before a test of its kernels: without a GPU they are
# interpreted. With one, only `tests/gpu` is for its kernels.
if not Path("/dev/nvidiactl").exists():
    os.environ.setdefault("TRITON_INTERPRET", "1")


def pytest_configure(config: pytest.Config) -> None:
    """Loads the fixtures, and torch with them; not where tests are only handed out to workers, which takes seconds."""
    is_worker = hasattr(config, "workerinput")
    if is_worker or config.getoption("dist", "no") == "no":
        config.pluginmanager.import_plugin("tests.fixtures")
