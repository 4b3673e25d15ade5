"""What a container leaves the processes in it, which the machine's own numbers do not tell. Needs no torch.

Linux keeps it in control groups, of which there are two versions. A limit may be a group's own or that of one above it.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

_NO_LIMIT = 2**60  # bytes; the older version writes "no limit" as a number near 2**63
_MINE, _ROOT = Path("/proc/self/cgroup"), Path("/sys/fs/cgroup")


def free_memory(mine: Path = _MINE, root: Path = _ROOT) -> int | None:
    """Bytes that the groups of this process may still take; None where nothing limits them.

    What the page cache of files would give back counts as free.
    """
    return min(_known(_free_memory(*group) for group in _groups("memory", mine, root)), default=None)


def num_cpus(mine: Path = _MINE, root: Path = _ROOT) -> int | None:
    """CPU cores whose time the groups of this process may use, whole ones as Ray counts them; None without a limit."""
    return min(_known(_num_cpus(*group) for group in _groups("cpu", mine, root)), default=None)


def _known(found: Iterator[int | None]) -> list[int]:
    return [each for each in found if each is not None]


def _groups(controller: str, mine: Path, root: Path) -> Iterator[tuple[Path, bool]]:
    """The groups of this process and those above them as far as they are seen, and whether of the older version."""
    try:
        lines = mine.read_text(encoding="utf-8").splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, place = line.split(":", 2)
        if controllers and controller not in controllers.split(","):
            continue
        top = root / controller if controllers else root
        group = top / place.lstrip("/")
        yield from ((each, bool(controllers)) for each in (group, *group.parents) if each.is_relative_to(top))


def _free_memory(group: Path, is_old: bool) -> int | None:
    limit, taken, cached = (
        ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
        if is_old
        else ("memory.max", "memory.current", "inactive_file")
    )
    try:
        most = (group / limit).read_text(encoding="ascii").strip()
        counts = dict(line.split() for line in (group / "memory.stat").read_text(encoding="ascii").splitlines())
        used = int((group / taken).read_text(encoding="ascii")) - int(counts.get(cached, 0))
        is_none = most == "max" or int(most) >= _NO_LIMIT
        return None if is_none else max(0, int(most) - max(0, used))
    except (OSError, ValueError):  # there is no such group, or it does not say
        return None


def _num_cpus(group: Path, is_old: bool) -> int | None:
    files = ("cpu.cfs_quota_us", "cpu.cfs_period_us") if is_old else ("cpu.max",)
    try:
        quota, period = " ".join((group / file).read_text(encoding="ascii") for file in files).split()
        return None if quota in ("max", "-1") else max(1, int(quota) // int(period))
    except (OSError, ValueError):
        return None
