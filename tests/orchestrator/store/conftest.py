"""A plan to store."""

from __future__ import annotations

import pyarrow as pa
import pytest

from tests.factories import plan_rows


@pytest.fixture(scope="session")
def plan() -> pa.Table:
    return plan_rows("t0", "t1")
