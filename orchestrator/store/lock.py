"""One driver a store: the lock file that names the one at work, and shows that it still is."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import re
import socket
import threading
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from orchestrator.store.files import Folder
from trainables.faults import FaultsError

logger = logging.getLogger(__name__)

LOCK = "lock.json"
BEAT_EVERY_S = 15.0  # between two signs of life that a driver gives by touching its lock
STALE_AFTER_S = 600.0  # without one, another host's driver counts as dead


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
    beat_every_s: float | None = None  # between two signs of life; None for a driver of old, which gave none

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


class Held:
    """A lock that is this process's own, as long as nobody takes it over."""

    def __init__(self, folder: Folder, mine: Holder) -> None:
        self._folder = folder
        self._mine = mine

    def check(self) -> None:
        """To be asked before each write. Raises `StoreLockedError` where another driver has taken the store over.

        That happens to a process that slept for `STALE_AFTER_S`. A lock that was deleted under its hands is made anew.
        Raises `OSError` where the lock cannot be read.
        """
        if self._is_there():
            return
        if _create(self._folder, self._mine):
            logger.warning("%s was gone, though this driver is at work: made anew", self._folder.at(LOCK))
        elif not self._is_there():
            raise self._taken_over_by("another driver")

    def _is_there(self) -> bool:
        """Whether there is a lock. Raises `StoreLockedError` where it is another driver's."""
        found = _read(self._folder)
        if found is not None and found.token != self._mine.token:
            raise self._taken_over_by(f"process {found.pid} on {found.host}")
        return found is not None

    def _taken_over_by(self, who: str) -> StoreLockedError:
        fault = f"{who} has taken this store over, since nothing was heard of this one; what it recorded is kept"
        return StoreLockedError(f"store {self._folder.path}", [fault])

    @contextlib.contextmanager
    def beating(self) -> Iterator[None]:
        """Give signs of life for a block, in a thread of their own."""
        ended = threading.Event()
        thread = threading.Thread(target=self._beat, args=[ended], name="adaptune-lock", daemon=True)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()

    def _beat(self, ended: threading.Event) -> None:
        while not ended.wait(BEAT_EVERY_S):
            try:
                # A lock that is gone is made anew by the next write, which first asks whether the whole store is gone.
                if not self._is_there():
                    continue
                if self._folder.is_local:
                    os.utime(self._folder.at(LOCK))
                else:
                    self._folder.write(LOCK, _content(self._mine))
            except StoreLockedError:
                return  # no sign of life on another one's lock; the next write meets it too
            except OSError:
                logger.debug("no sign of life could be given", exc_info=True)

    def give_back(self) -> None:
        """Remove the lock, unless it is another one's by now."""
        try:
            found = _read(self._folder)
            if found is not None and found.token == self._mine.token:
                self._folder.discard(LOCK)
        except (OSError, StoreLockedError):
            logger.warning("%s could not be removed", self._folder.at(LOCK), exc_info=True)


@contextlib.contextmanager
def hold(folder: Folder) -> Iterator[Held]:
    """Be the only driver of a store while the block runs.

    A lock whose process has died on this host, or has given no sign of life for `STALE_AFTER_S` on another, is taken
    over with a warning. On a local disk two drivers can never both enter; object stores offer no exclusive creation,
    and there two that start within the same moment might, until the first of them writes.

    Raises `StoreLockedError` naming the host and process at work, and `FaultsError` where nothing can be written.
    """
    mine = Holder(
        host=socket.gethostname(),
        pid=os.getpid(),
        started_at=datetime.now(UTC).isoformat(timespec="seconds"),
        birth=_birth(os.getpid()),
        token=uuid.uuid4().hex,
        beat_every_s=BEAT_EVERY_S,
    )
    try:
        _acquire(folder, mine)
    except OSError as error:
        raise FaultsError(f"store {folder.path}", [f"the store must be writable, but {error}"]) from error
    held = Held(folder, mine)
    try:
        with held.beating():
            yield held
    finally:
        held.give_back()


def holder(folder: Folder) -> Holder | None:
    """The driver at work on a store; None where there is none, or where it is known to have died."""
    found = _read(folder)
    return None if found is None or found.is_dead() else found


def last_sign(folder: Folder) -> datetime | None:
    """When the driver at work last gave a sign of life, in UTC; None where there is no lock."""
    return folder.changed_at(LOCK)


def _acquire(folder: Folder, mine: Holder) -> None:
    for _ in range(2):
        if _create(folder, mine):
            return
        other = _read(folder)
        if other is None:
            continue  # given back since
        if other.is_dead():
            why = "which died"
        elif _is_silent(folder, other):
            why = f"which has given no sign of life for {STALE_AFTER_S / 60:.0f} minutes"
        else:
            break
        since = f"at work since {other.started_at}"
        logger.warning("taking over the lock of process %d on %s, %s, %s", other.pid, other.host, since, why)
        _remove(folder, other)
    else:
        other = _read(folder)
    who = f"process {other.pid} on {other.host}, since {other.started_at}," if other else "another driver"
    fault = f"a store has one driver at a time, but {who} is at work; if it is gone, delete {folder.at(LOCK)}"
    raise StoreLockedError(f"store {folder.path}", [fault])


def _is_silent(folder: Folder, other: Holder) -> bool:
    """Whether a driver that should give signs of life on another host has not. Both times are the file system's."""
    seen = last_sign(folder)
    if other.beat_every_s is None or other.host == socket.gethostname() or seen is None:
        return False
    probe = f".{LOCK}.{uuid.uuid4().hex[:8]}.tmp"
    folder.write(probe, b"")
    try:
        now = folder.changed_at(probe)
    finally:
        folder.discard(probe)
    return now is not None and (now - seen).total_seconds() > STALE_AFTER_S


def _content(mine: Holder) -> bytes:
    return json.dumps(asdict(mine), indent=2).encode()


def _create(folder: Folder, mine: Holder) -> bool:
    if not folder.is_local:
        if folder.exists(LOCK):
            return False
        folder.write(LOCK, _content(mine))
        found = _read(folder)
        return found is not None and found.token == mine.token  # of two who write at once, the later is the holder
    aside = f".{LOCK}.{mine.token[:8]}.tmp"
    folder.write(aside, _content(mine))
    try:
        os.link(folder.at(aside), folder.at(LOCK))  # fails where it is there, and is never seen half written
        return True
    except FileExistsError:
        return False
    except OSError:  # a disk without links
        return _create_in_place(folder, mine)
    finally:
        folder.discard(aside)


def _create_in_place(folder: Folder, mine: Holder) -> bool:
    try:
        with open(folder.at(LOCK), "xb") as file:
            file.write(_content(mine))
    except FileExistsError:
        return False
    return True


def _read(folder: Folder) -> Holder | None:
    """Who holds the lock; None where nobody does. Raises `StoreLockedError` where the file does not say."""
    try:
        return _parse(json.loads(folder.read(LOCK).to_pybytes()))
    except FileNotFoundError:
        return None
    except (ValueError, TypeError, RecursionError) as error:
        fault = f"{LOCK} cannot be read ({error}); if no driver is at work, delete {folder.at(LOCK)}"
        raise StoreLockedError(f"store {folder.path}", [fault]) from error


def _parse(values: Mapping[str, Any]) -> Holder:
    found = Holder(**values)
    texts = (found.host, found.started_at, found.token, found.birth or "")
    if not all(isinstance(text, str) for text in texts):
        raise ValueError("host, started_at, birth and token must be text")
    if not isinstance(found.pid, int) or not 0 < found.pid < 2**31:  # os.kill means others by 0 and below
        raise ValueError(f"pid must be the number of a process, but is {found.pid!r}")
    return found


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
