"""What only the kernel does: a process that wants memory is killed, a driver runs where it sees no other process."""

from __future__ import annotations

import contextlib
import os
import struct
import subprocess
from functools import cache
from pathlib import Path

CLOCK_FOLDER = Path(__file__).parent / "clock"
# A process namespace of its own with the machine's name, as in a container; whoever ends it ends all that is in it.
NAMESPACE = ("unshare", "--pid", "--fork", "--mount-proc", "--kill-child")
_LIMIT = 4 * 2**20
_FIRST, _SECOND = Path("/sys/fs/cgroup/memory"), Path("/sys/fs/cgroup")  # of the two versions of control groups


class Clock:
    """The wall clock of a round's drivers, which may jump."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self.jump(0.0)

    def jump(self, seconds: float) -> None:
        """Set it to so many seconds from the true time."""
        written = self._file.with_name(f"{self._file.name}.new")
        written.write_bytes(struct.pack("d", seconds))
        written.replace(self._file)  # in one step: somebody reads it all the time

    def environment(self) -> dict[str, str]:
        return {"CHAOS_CLOCK": str(self._file)}


class MemoryLimit:
    """A control group with hardly any memory. A process put into it is killed as soon as it asks for more."""

    def __init__(self, name: str) -> None:
        self._root = _FIRST if _FIRST.is_dir() else _SECOND
        self._group = self._root / name

    def put(self, process: int) -> bool:
        """Whether the process is in it now."""
        with contextlib.suppress(OSError):
            self._group.mkdir(exist_ok=True)
            name = "memory.limit_in_bytes" if self._root == _FIRST else "memory.max"
            (self._group / name).write_text(str(_LIMIT))
            before = Path(f"/proc/{process}/cgroup").read_text()
            (self._group / "cgroup.procs").write_text(str(process))
            self._before = self._root / _own_group(before, first=self._root == _FIRST)
            return True
        return False

    def take_back(self) -> None:
        """Put whoever is still alive in it back."""
        with contextlib.suppress(OSError):
            for process in (self._group / "cgroup.procs").read_text().split():
                (self._before / "cgroup.procs").write_text(process)
            self._group.rmdir()


def _own_group(table: str, *, first: bool) -> str:
    """The path of a process's group, by its table in /proc."""
    for line in table.splitlines():
        _, controllers, path = line.split(":", 2)
        if ("memory" in controllers.split(",")) if first else controllers == "":
            return path.lstrip("/")
    return ""


@cache
def has_namespaces() -> bool:
    return _runs([*NAMESPACE, "true"])


@cache
def has_memory_limits() -> bool:
    """Whether this process may make control groups that limit memory."""
    sleeper = subprocess.Popen(["sleep", "60"])
    limit = MemoryLimit(f"adaptune-chaos-{os.getpid()}-trial")
    try:
        return limit.put(sleeper.pid)
    finally:
        limit.take_back()
        sleeper.kill()
        sleeper.wait()


def _runs(command: list[str]) -> bool:
    with contextlib.suppress(OSError):
        return subprocess.run(command, capture_output=True, check=False).returncode == 0
    return False
