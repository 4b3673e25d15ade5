"""Who a driver is, and when it is certain that it has ended."""

from __future__ import annotations

import json
import os
import re
import socket
import uuid
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Holder:
    """Who holds a lock. The token alone is its identity: containers share host names and process ids."""

    host: str
    pid: int
    started_at: str  # UTC, ISO 8601
    birth: str | None  # tells the process from a later one with the same pid; None where the platform does not say
    token: str
    beat_every_s: float | None = None  # between two signs of life; None for a driver of old, which gave none
    pid_namespace: int | None = None  # within which the pid means something; None where the platform does not say
    fence: int = 1  # one more than that of the driver from which it took the store over
    beats: int = 0  # signs of life given by writing the lock anew
    released: bool = False  # given back, where a lock is not deleted

    def is_dead(self) -> bool:
        """Whether it is certain that this process has ended: it would be seen here, and is not."""
        return self._is_visible() and self._is_running() is False

    def is_alive(self) -> bool:
        """Whether it is certain that this process has not ended."""
        return self._is_visible() and self._is_running() is True

    def _is_visible(self) -> bool:
        """Whether the process, if it runs, has its pid here: same boot of the same kernel, same pid namespace."""
        boot, _, birth = (self.birth or "").partition("/")
        return bool(birth) and boot == boot_id() and self.pid_namespace == pid_namespace() is not None

    def _is_running(self) -> bool | None:
        if (birth := birth_of(self.pid)) is not None:
            return birth == self.birth
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return False
        except OSError:  # it is another user's, of whom /proc tells nothing
            return None
        return False  # it has ended, and nobody has asked how

    def describe(self) -> str:
        return f"process {self.pid} on {self.host}, since {self.started_at},"

    def content(self) -> bytes:
        return json.dumps(asdict(self), indent=2).encode()


def this_driver(beat_every_s: float) -> Holder:
    """A new identity for this process."""
    return Holder(
        host=socket.gethostname(),
        pid=os.getpid(),
        started_at=datetime.now(UTC).isoformat(timespec="seconds"),
        birth=birth_of(os.getpid()),
        token=uuid.uuid4().hex,
        beat_every_s=beat_every_s,
        pid_namespace=pid_namespace(),
    )


def parse_holder(content: bytes) -> Holder:
    """Raises `ValueError`, `TypeError` or `RecursionError` where a lock does not say who holds it."""
    values: Mapping[str, Any] = json.loads(content)
    found = Holder(**values)
    if not all(isinstance(text, str) for text in (found.host, found.started_at, found.token, found.birth or "")):
        raise ValueError("host, started_at, birth and token must be text")
    if not re.fullmatch(r"[A-Za-z0-9]+", found.token):  # it names a folder
        raise ValueError(f"token must be letters and digits, but is {found.token!r}")
    if not _is_whole(found.pid) or not 0 < found.pid < 2**31:
        raise ValueError(f"pid must be the number of a process, but is {found.pid!r}")
    if not all(_is_whole(number) for number in (found.fence, found.beats, found.pid_namespace or 0)):
        raise ValueError("fence, beats and pid_namespace must be whole numbers")
    if not isinstance(found.released, bool) or not isinstance(found.beat_every_s or 0.0, int | float):
        raise ValueError(f"{', '.join(each.name for each in fields(Holder)[-5:])} must be of their kind")
    return found


def _is_whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def boot_id() -> str | None:
    """This boot of this machine, which its containers share; None where Linux's /proc is not there to say so."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return None


def pid_namespace() -> int | None:
    """The namespace in which this process has its pid; None where Linux's /proc is not there to say so."""
    try:
        return os.stat("/proc/self/ns/pid").st_ino
    except OSError:
        return None


def birth_of(pid: int) -> str | None:
    """When a process that runs began, exactly; None where none does, or where Linux's /proc is not there to say so."""
    try:
        after_name = re.sub(r".*\)", "", Path(f"/proc/{pid}/stat").read_text(), flags=re.DOTALL).split()
    except OSError:
        return None
    if after_name[0] in "ZX":  # it has ended, and its parent has not asked how
        return None
    return f"{boot_id()}/{after_name[19]}"  # field 22 of proc(5): start time in clock ticks since boot
