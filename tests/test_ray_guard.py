"""A test that starts Ray without saying so is told what to do."""

from __future__ import annotations

import pytest
import ray


def test_a_test_that_is_not_marked_for_ray_cannot_start_it() -> None:
    with pytest.raises(RuntimeError, match=r"mark it with pytest\.mark\.ray"):
        ray.init(address="local", include_dashboard=False)
