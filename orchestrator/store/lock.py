"""One driver a store: the lock that names the one at work and shows that it still is, and how it changes hands."""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime
from pathlib import Path

from orchestrator.store.fence import StoreLockedError, lost
from orchestrator.store.files import Folder
from orchestrator.store.identity import Holder, this_driver
from orchestrator.store.lock_places import LOCK, LocalPlace, LockPlace, Seen, UncertainPlace
from orchestrator.store.object_lock import UnconditionalError, object_place
from trainables.faults import FaultsError

logger = logging.getLogger(__name__)

BEAT_EVERY_S = 5.0  # between two signs of life that a driver gives
SILENCE_S = 120.0  # a driver that is watched for so long and gives none may be followed by another
LOOK_EVERY_S = 0.5  # while one is watched
_ATTEMPTS = 50  # at a lock that changes hands meanwhile


class Held:
    """A lock that is this process's own, as long as nobody takes it over."""

    def __init__(self, place: LockPlace, mine: Holder, *, was_taken: bool | None) -> None:
        """`was_taken`: whether from a driver that may not know it yet; None where nobody can tell."""
        self._place = place
        self._mine = mine
        self.was_taken = was_taken

    def check(self) -> None:
        """To be asked before each write. Raises `StoreLockedError` where another driver has taken the store over.

        A lock that was deleted under this driver's hands is made anew. Raises `OSError` where it cannot be read.
        """
        if self._is_there():
            return
        if self._place.renew(self._mine):
            logger.warning("%s was gone, though this driver is at work: made anew", self._place.shown)
        elif not self._is_there():
            raise lost(self._place.store, "another driver")

    def _is_there(self) -> bool:
        """Whether there is a lock. Raises `StoreLockedError` where it is another driver's."""
        seen = self._place.look()
        if seen is not None and seen.holder.token != self._mine.token:
            raise lost(self._place.store, f"process {seen.holder.pid} on {seen.holder.host}")
        return seen is not None

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
                if self._is_there():
                    self._place.beat(self._mine)
            except StoreLockedError:
                return  # no sign of life on another one's lock; the next write meets it too
            except OSError:
                logger.debug("no sign of life could be given", exc_info=True)

    def give_back(self) -> None:
        """Let the lock go, unless it is another one's by now."""
        try:
            self._place.give_back(self._mine)
        except (OSError, StoreLockedError) as error:
            logger.warning("%s could not be given back: %s", self._place.shown, error)
            logger.debug("giving it back", exc_info=True)
        finally:
            self._place.close(self._mine)


@contextlib.contextmanager
def hold(folder: Folder, uri: str, *, take_over: bool = False, only_driver: bool = False) -> Iterator[Held]:
    """Be the only driver of a store, which has this URI, while the block runs.

    The lock of a process that has certainly died is taken over at once. One of a driver that cannot be seen from here
    is watched: with its next sign of life this driver is refused, and after `SILENCE_S` without one it takes over. Time
    is measured by this process's own clock, whatever other machines' clocks say. With `take_over` nobody is waited for.
    What a driver that was taken over still writes is refused: see `orchestrator.store.fence`.

    A place that offers neither exclusive creation nor conditional writes is refused, unless the user vouches with
    `only_driver` that nothing else writes there. A driver is then taken over with `take_over` only, and two that start
    within the same second might both begin, until the first of them writes.

    Raises `StoreLockedError` naming the host and process at work, and `FaultsError` where nothing can be written or
    the place is refused.
    """
    mine = this_driver(BEAT_EVERY_S)
    try:
        place = _place(folder, uri, only_driver=only_driver)
        mine, was_taken = _acquire(place, mine, take_over=take_over)
    except OSError as error:
        fault = f"the store must be writable, but {error}"
        if isinstance(error, NotADirectoryError) and Path(folder.path).is_file():
            fault = f"a store must be a folder or a bucket, but {folder.path} is a file"
        raise FaultsError(f"store {folder.path}", [fault]) from error
    held = Held(place, mine, was_taken=was_taken)
    try:
        with held.beating():
            yield held
    finally:
        held.give_back()


def _place(folder: Folder, uri: str, *, only_driver: bool) -> LockPlace:
    """Where a store's lock lies. Raises `FaultsError` where it could not keep a second driver out, and `OSError`."""
    if folder.is_local:
        return LocalPlace(folder)
    try:
        return object_place(folder, uri)
    except UnconditionalError as lack:
        if only_driver:
            return UncertainPlace(folder)
        vouch = "if nothing else runs on this store, say so with --only-driver (in Python only_driver=True)"
        fault = f"a store must be a place that keeps a second driver out, but {lack}; {lack.remedy}, or {vouch}"
        raise FaultsError(f"store {folder.path}", [fault]) from None


def holder(folder: Folder) -> Holder | None:
    """The driver at work on a store; None where there is none, or where it is certain that it has died."""
    found = UncertainPlace(folder).look()
    return None if found is None or found.holder.released or found.holder.is_dead() else found.holder


def last_sign(folder: Folder) -> datetime | None:
    """When the driver at work last gave a sign of life, in UTC by the file system's clock; None without a lock."""
    return folder.changed_at(LOCK)


def _acquire(place: LockPlace, mine: Holder, *, take_over: bool) -> tuple[Holder, bool | None]:
    """The lock as it is held now, and whether another driver may still think that it holds it: None is not known."""
    watch: _Watch | None = None
    victim: str | None = None  # whom the user meant: not one that came first meanwhile
    for _ in range(_ATTEMPTS):
        seen = place.look()
        if seen is None or seen.holder.released:
            mine = replace(mine, fence=1 if seen is None else seen.holder.fence + 1)
            if place.take(mine, seen):
                return mine, None if seen is None else False
            continue
        other = seen.holder
        victim = victim or other.token
        if other.is_dead():
            why = "which died"
        elif take_over and other.token == victim:
            why = "as asked for"
        elif other.is_alive() or other.beat_every_s is None or not place.is_certain:
            raise _refusal(place, other)
        else:
            watch = watch if watch is not None and watch.token == other.token else _Watch(seen)
            watch.until_silent(place)
            if place.look() != seen:
                continue
            why = f"which has given no sign of life for {SILENCE_S:.0f} seconds"
        logger.warning("taking over the lock of %s %s", other.describe(), why)
        mine = replace(mine, fence=other.fence + 1)
        if place.take(mine, seen):
            return mine, True
    seen = place.look()
    raise _refusal(place, None if seen is None else seen.holder)


class _Watch:
    """Looks at a driver's lock until it has given a sign of life or been silent for long enough."""

    def __init__(self, seen: Seen) -> None:
        self._seen = seen
        self.token = seen.holder.token

    def until_silent(self, place: LockPlace) -> None:
        """Returns where there was no sign of life or the lock is not its any more; else raises `StoreLockedError`."""
        who = f"{self._seen.holder.describe()}"
        logger.warning(
            "%s holds this store; watching it for a sign of life, for up to %.0f seconds (--take-over does not wait)",
            who.rstrip(","),
            SILENCE_S,
        )
        began = time.monotonic()
        while time.monotonic() - began < SILENCE_S:
            time.sleep(LOOK_EVERY_S)
            now = place.look()
            if now is None or now.holder.token != self.token or now.holder.released:
                return
            if now.mark != self._seen.mark:
                raise _refusal(place, now.holder)


def _refusal(place: LockPlace, other: Holder | None) -> StoreLockedError:
    who = other.describe() if other else "another driver"
    fault = f"a store has one driver at a time, but {who} is at work; if it is gone, say so with --take-over"
    return StoreLockedError(f"store {place.store}", [f"{fault} (or delete {place.shown})"])
