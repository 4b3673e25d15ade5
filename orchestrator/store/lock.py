"""One driver a store: the lock file that names the one at work."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import re
import socket
import uuid
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

from orchestrator.store.files import Folder
from trainables.faults import FaultsError

logger = logging.getLogger(__name__)

LOCK = "lock.json"


class StoreLockedError(FaultsError):
    """Another driver is at work on this store."""


@dataclass(frozen=True, kw_only=True)
class Holder:
    """Who holds a lock."""

    host: str
    pid: int
    started_at: str  # UTC, ISO 8601
    birth: str | None  # tells the process from a later one with the same pid; None where the platform does not say
    token: str

    def is_dead(self) -> bool:
        """Whether this process is known to have ended. Of another host's processes nothing is known."""
        if self.host != socket.gethostname() or os.name == "nt":  # there os.kill(pid, 0) is no harmless question
            return False
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return True
        except OSError:
            pass  # it lives and is another user's
        return self.birth is not None and self.birth != _birth(self.pid)


@contextlib.contextmanager
def hold(folder: Folder) -> Iterator[None]:
    """Be the only driver of a store while the block runs.

    A lock whose process has died on this host is taken over with a warning. On a local disk two drivers can never
    both enter; object stores offer no exclusive creation, and there two that start within the same moment might.

    Raises `StoreLockedError` naming the host and process at work, and `FaultsError` where nothing can be written.
    """
    mine = Holder(
        host=socket.gethostname(),
        pid=os.getpid(),
        started_at=datetime.now(UTC).isoformat(timespec="seconds"),
        birth=_birth(os.getpid()),
        token=uuid.uuid4().hex,
    )
    try:
        _acquire(folder, mine)
    except OSError as error:
        raise FaultsError(f"store {folder.path}", [f"the store must be writable, but {error}"]) from error
    try:
        yield
    finally:
        try:
            if _read(folder) == mine:
                folder.delete(LOCK)
        except (OSError, StoreLockedError):
            logger.warning("%s could not be removed", folder.at(LOCK), exc_info=True)


def holder(folder: Folder) -> Holder | None:
    """The driver at work on a store; None where there is none, or where it is known to have died."""
    found = _read(folder)
    return None if found is None or found.is_dead() else found


def _acquire(folder: Folder, mine: Holder) -> None:
    for _ in range(2):
        if _create(folder, mine):
            return
        other = _read(folder)
        if other is None:
            continue  # given back since
        if not other.is_dead():
            break
        logger.warning(
            "taking over the lock of process %d on %s, which died after %s", other.pid, other.host, other.started_at
        )
        _remove(folder, other)
    else:
        other = _read(folder)
    who = f"process {other.pid} on {other.host}, since {other.started_at}," if other else "another driver"
    fault = f"a store has one driver at a time, but {who} is at work; if it is gone, delete {folder.at(LOCK)}"
    raise StoreLockedError(f"store {folder.path}", [fault])


def _create(folder: Folder, mine: Holder) -> bool:
    content = json.dumps(asdict(mine), indent=2).encode()
    if not folder.is_local:
        if folder.exists(LOCK):
            return False
        folder.write(LOCK, content)
        return _read(folder) == mine  # of two who write at once, the later is the holder
    Path(folder.path).mkdir(parents=True, exist_ok=True)
    try:
        with open(folder.at(LOCK), "xb") as file:
            file.write(content)
    except FileExistsError:
        return False
    return True


def _read(folder: Folder) -> Holder | None:
    """Who holds the lock; None where nobody does."""
    try:
        return Holder(**json.loads(folder.read(LOCK).to_pybytes()))
    except FileNotFoundError:
        return None
    except (ValueError, TypeError) as error:
        fault = f"{LOCK} cannot be read ({error}); if no driver is at work, delete {folder.at(LOCK)}"
        raise StoreLockedError(f"store {folder.path}", [fault]) from error


def _remove(folder: Folder, dead: Holder) -> None:
    """Remove the lock of a dead process, and no other, should someone else have taken it over meanwhile."""
    aside = f".{LOCK}.{uuid.uuid4().hex[:8]}.tmp"
    with contextlib.suppress(FileNotFoundError):
        folder.filesystem.move(folder.at(LOCK), folder.at(aside))
        if json.loads(folder.read(aside).to_pybytes()).get("token") == dead.token:
            folder.delete(aside)
        else:
            folder.filesystem.move(folder.at(aside), folder.at(LOCK))


def _birth(pid: int) -> str | None:
    """When a process of this machine began, exactly; None where Linux's /proc is not there to say so."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        after_name = re.sub(r".*\)", "", Path(f"/proc/{pid}/stat").read_text(), flags=re.DOTALL).split()
    except OSError:
        return None
    return f"{boot}/{after_name[19]}"  # field 22 of proc(5): start time in clock ticks since boot
