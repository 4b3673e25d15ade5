"""How often the kernel has killed a process of this machine for want of memory. Needs no Ray.

Nothing else tells such an end from any other SIGKILL: the process leaves no word, and Ray sees a broken connection.
"""

from __future__ import annotations

from pathlib import Path

_COUNTERS = Path("/proc/vmstat")  # of Linux 4.13 and newer; those that a container's own limit killed count too


def memory_kills(counters: Path = _COUNTERS) -> int | None:
    """The number since the machine was started; None where the system does not count them."""
    try:
        lines = counters.read_text(encoding="ascii").splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) for line in lines if line.startswith("oom_kill ")), None)
