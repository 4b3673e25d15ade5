"""Where a lock lies and how it changes hands there: on a local disk, and where a file system promises little."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import time
from collections.abc import Hashable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

from orchestrator.store.fence import StoreLockedError, staging_folder, take_away
from orchestrator.store.files import Folder
from orchestrator.store.identity import Holder, parse_holder

LOCK = "lock.json"
# Of two who write at once where nothing is exclusive, the later is the holder: each waits so long before it looks.
SETTLE_S = 1.0
# Between taking a dead driver's folder and its lock lie microseconds. Who needs longer has died in between.
HALF_TAKEN_S = 1.0


@dataclass(frozen=True)
class Seen:
    """A lock as it was found. The mark changes with every sign of life, of a driver of any kind of place."""

    holder: Holder
    mark: Hashable


class LockPlace(Protocol):
    """The lock of one store. Whatever a place cannot do for a moment raises `OSError`."""

    store: str  # as it is called in messages
    shown: str  # the lock itself
    is_certain: bool  # whether of several who take it one wins, whatever happens

    def look(self) -> Seen | None:
        """The lock as it is; None where there is none. Raises `StoreLockedError` where it does not say whose it is."""

    def take(self, mine: Holder, seen: Seen | None) -> bool:
        """Put `mine` in the place of what was seen; False where something else is there, or someone else was first."""

    def renew(self, mine: Holder) -> bool:
        """Make a lock anew that was `mine` and that somebody deleted; False where another one is there by now."""

    def beat(self, mine: Holder) -> None:
        """Give a sign of life on a lock that is `mine`."""

    def give_back(self, mine: Holder) -> None:
        """Let go of the lock, where it is `mine`."""

    def close(self, mine: Holder) -> None:
        """Let go of what else was set up for `mine`. Never raises `OSError`."""


def parsed(place: LockPlace, content: bytes) -> Holder:
    """Raises `StoreLockedError` where a lock does not say whose it is."""
    try:
        return parse_holder(content)
    except (ValueError, TypeError, RecursionError) as error:
        fault = f"{LOCK} cannot be read ({error}); if no driver is at work, delete {place.shown}"
        raise StoreLockedError(f"store {place.store}", [fault]) from error


class UncertainPlace:
    """A file on any file system. It keeps a second driver out, unless both start within the same moment.

    A sign of life changes what the file holds: the driver that watches may see this place by other means, and an object
    store's tag of an object stays what it was where the same bytes are written again.
    """

    is_certain = False

    def __init__(self, folder: Folder) -> None:
        self._folder = folder
        self.store = folder.path
        self.shown = folder.at(LOCK)

    def look(self) -> Seen | None:
        try:
            changed = self._folder.changed_at(LOCK)
            content = self._folder.read(LOCK).to_pybytes()
        except FileNotFoundError:
            return None
        return Seen(parsed(self, content), (changed, content))

    def take(self, mine: Holder, seen: Seen | None) -> bool:
        found = self.look()
        if (found and found.holder.token) != (seen and seen.holder.token):
            return False
        self._folder.write(LOCK, mine.content())
        time.sleep(SETTLE_S)
        return self._is(mine)

    def renew(self, mine: Holder) -> bool:
        return self.take(mine, None)

    def beat(self, mine: Holder) -> None:
        seen = self.look()
        if seen is not None and seen.holder.token == mine.token:
            self._folder.write(LOCK, replace(mine, beats=seen.holder.beats + 1).content())

    def give_back(self, mine: Holder) -> None:
        if self._is(mine):
            self._folder.discard(LOCK)

    def close(self, mine: Holder) -> None:
        """Nothing else was set up."""

    def _is(self, mine: Holder) -> bool:
        found = self.look()
        return found is not None and found.holder.token == mine.token


class LocalPlace:
    """A file on a disk that knows links and renames, both of which happen in one step or not at all.

    A new lock is linked into its place, which fails where there is one. To take a lock over is to rename the folder of
    unfinished files of the driver that held it, which one alone can do and which fences that driver off, and then to
    put the new lock in the place of the old one. A sign of life is the time of the lock's last change, which a full
    disk gives too, and which all see who reach it.
    """

    is_certain = True

    def __init__(self, folder: Folder) -> None:
        self._folder = folder
        self.store = folder.path
        self.shown = folder.at(LOCK)
        self._lock = Path(self.shown)

    def look(self) -> Seen | None:
        try:
            with open(self._lock, "rb") as file:
                changed, content = os.fstat(file.fileno()).st_mtime_ns, file.read()
        except FileNotFoundError:
            return None
        return Seen(parsed(self, content), changed)

    def take(self, mine: Holder, seen: Seen | None) -> bool:
        own = Path(staging_folder(self.store, mine.token))
        own.mkdir(parents=True)
        took = False
        with contextlib.suppress(FileNotFoundError):  # another one has taken the store, and this folder away
            try:
                prepared = own / LOCK
                prepared.write_bytes(mine.content())
                took = self._create(prepared) if seen is None else self._replace(prepared, seen.holder, mine)
                took = took and own.is_dir()
            finally:
                if not took:
                    shutil.rmtree(own, ignore_errors=True)
        if took:
            self._folder.fence.staging = str(own)
        return took

    def renew(self, mine: Holder) -> bool:
        self._folder.fence.check()
        prepared = Path(self._folder.fence.aside())
        prepared.write_bytes(mine.content())
        return self._create(prepared)

    def beat(self, mine: Holder) -> None:
        os.utime(self._lock)

    def give_back(self, mine: Holder) -> None:
        seen = self.look()
        if seen is not None and seen.holder.token == mine.token:
            with contextlib.suppress(FileNotFoundError):  # it was taken over since
                os.rename(self._lock, self._folder.fence.aside())

    def close(self, mine: Holder) -> None:
        self._folder.fence.open()
        shutil.rmtree(staging_folder(self.store, mine.token), ignore_errors=True)

    def _create(self, prepared: Path) -> bool:
        try:
            os.link(prepared, self._lock)  # never seen half written
        except FileExistsError:
            return False
        except FileNotFoundError:
            raise
        except OSError:  # a disk without links
            try:
                with open(self._lock, "xb") as file:
                    file.write(prepared.read_bytes())
            except FileExistsError:
                return False
        take_away(self.store, but=prepared.parent)  # of whoever had a lock that somebody deleted
        return True

    def _replace(self, prepared: Path, other: Holder, mine: Holder) -> bool:
        try:  # one alone can do this, and the other is fenced off from then on
            os.rename(staging_folder(self.store, other.token), prepared.with_name("claimed"))
        except FileNotFoundError:
            if not self._claim_half_taken(prepared, other):
                return False
        now = self.look()
        if now is None or now.holder.token != other.token:
            return now is None and self._create(prepared)
        prepared.rename(self._lock)
        return True

    def _claim_half_taken(self, prepared: Path, other: Holder) -> bool:
        """Take the lock of a driver without a folder: one of old, or one whose successor died as it took over."""
        time.sleep(HALF_TAKEN_S * (1 + random.random()))
        now = self.look()
        if now is None or now.holder.token != other.token:
            return False
        take_away(self.store, but=prepared.parent)  # a successor that lives after all can go on no more
        taken = prepared.with_name("taken")
        os.rename(self._lock, taken)
        if parsed(self, taken.read_bytes()).token == other.token:
            return True
        with contextlib.suppress(FileExistsError):
            os.link(taken, self._lock)
        return False
