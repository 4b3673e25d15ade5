"""A Ray of this machine that the sweeps of a test module share: each start of its own would take seconds."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import ray

from tests.compiled import cache_with_kernels


@contextmanager
def local_ray(cache: Path, *, num_cpus: int) -> Iterator[None]:
    """Ray with so many CPUs while the context lasts; its engines keep what they cache in an empty folder."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ADAPTUNE_CACHE", str(cache_with_kernels(cache)))
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.setenv("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
        ray.init(
            address="local",
            num_cpus=num_cpus,
            include_dashboard=False,
            log_to_driver=False,
            logging_level=logging.ERROR,
            object_store_memory=100 * 2**20,
        )
        yield
        ray.shutdown()
