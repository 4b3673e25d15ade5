"""The kernel's own count of processes that it killed for want of memory."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from orchestrator.scheduling.memory_kills import memory_kills


@pytest.mark.parametrize(
    ("content", "found"), [("pgfault 12\noom_kill 3\nswap_ra 1\n", 3), ("oom_kill_of_another 3\n", None), ("", None)]
)
def test_the_count_is_read_where_there_is_one(tmp_path: Path, content: str, found: int | None) -> None:
    (tmp_path / "vmstat").write_text(content)
    assert memory_kills(tmp_path / "vmstat") == found
    assert memory_kills(tmp_path / "none") is None


def test_linux_counts_and_others_need_not() -> None:
    assert (memory_kills() is not None) is (sys.platform == "linux")
