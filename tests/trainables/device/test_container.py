"""What a container leaves its processes, by the files of both versions of control groups."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest
import torch

from trainables.device import container, hardware, memory
from trainables.device.container import free_memory, num_cpus
from trainables.device.hardware import count_devices, num_cores
from trainables.device.memory import free_bytes

GIB = 2**30


def write(root: Path, mine: str, groups: Mapping[str, str | int]) -> tuple[Path, Path]:
    """The file that names this process's groups, and where they are."""
    for name, content in groups.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(f"{content}\n")
    (root / "mine").write_text(mine)
    return root / "mine", root


def test_what_is_left_is_the_limit_less_what_is_taken_and_not_cached(tmp_path: Path) -> None:
    groups = {
        "memory.max": 8 * GIB,
        "memory.current": 5 * GIB,
        "memory.stat": f"anon {4 * GIB}\ninactive_file {GIB}",
        "cpu.max": "250000 100000",
    }
    given = write(tmp_path, "0::/\n", groups)
    assert free_memory(*given) == 4 * GIB
    assert num_cpus(*given) == 2  # half a core holds no engine


def test_the_tightest_of_the_groups_above_decides(tmp_path: Path) -> None:
    groups: dict[str, str | int] = {}
    for group, most, cpus in (("a/b", "max", "max"), ("a", 3 * GIB, "50000"), ("", 4 * GIB, "400000")):
        groups |= {f"{group}/memory.max": most, f"{group}/memory.current": GIB, f"{group}/memory.stat": "anon 1"}
        groups |= {f"{group}/cpu.max": f"{cpus} 100000"}
    given = write(tmp_path, "0::/a/b\n", {name.lstrip("/"): content for name, content in groups.items()})
    assert free_memory(*given) == 2 * GIB
    assert num_cpus(*given) == 1


def test_the_older_version_has_a_folder_a_controller_and_a_container_sees_its_own_at_the_top(tmp_path: Path) -> None:
    groups = {
        "memory/memory.limit_in_bytes": 6 * GIB,
        "memory/memory.usage_in_bytes": 2 * GIB,
        "memory/memory.stat": f"cache 5\ntotal_inactive_file {GIB}",
        "cpu/cpu.cfs_quota_us": 400_000,
        "cpu/cpu.cfs_period_us": 100_000,
    }
    mine = "9:name=systemd:/x\n4:memory:/docker/0123\n2:cpu,cpuacct:/docker/0123\n0::/\n"
    given = write(tmp_path, mine, groups)
    assert free_memory(*given) == 5 * GIB
    assert num_cpus(*given) == 4


@pytest.mark.parametrize(
    "groups", [{}, {"memory.max": "max", "memory.current": 1, "memory.stat": "", "cpu.max": "max 9"}]
)
def test_without_a_limit_nothing_is_said(groups: Mapping[str, str | int], tmp_path: Path) -> None:
    old = {"memory.limit_in_bytes": 9223372036854771712, "memory.usage_in_bytes": 1, "memory.stat": ""}
    given = write(tmp_path, "4:memory:/\n0::/\n", {**groups, **{f"memory/{name}": each for name, each in old.items()}})
    assert (free_memory(*given), num_cpus(*given)) == (None, None)
    assert free_memory(tmp_path / "none", tmp_path) is None  # on other systems than Linux


def test_engines_are_laid_out_by_what_the_container_leaves(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "_read_kilobytes", lambda path, name: 500 * GIB)
    monkeypatch.setattr(container, "free_memory", lambda: 8 * GIB)
    monkeypatch.setattr(container, "num_cpus", lambda: 4)
    monkeypatch.setattr(hardware.os, "cpu_count", lambda: 64)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    assert free_bytes(torch.device("cpu")) == 8 * GIB
    assert num_cores() == count_devices() == 4
    monkeypatch.setattr(container, "free_memory", lambda: None)
    monkeypatch.setattr(container, "num_cpus", lambda: None)
    assert free_bytes(torch.device("cpu")) == 500 * GIB
    assert num_cores() == 64
