"""The fence between the driver at work and one that has lost its store: a write of the latter fails, however late."""

from __future__ import annotations

import contextlib
import os
import shutil
import uuid
from collections.abc import Callable
from pathlib import Path

from trainables.faults import FaultsError

STAGING = ".writing-"  # the beginning of the name of a driver's folder of unfinished files, followed by its token


class StoreLockedError(FaultsError):
    """Another driver is at work on this store."""


class Fence:
    """What all folders of one store share, and what is set while this process is the store's driver.

    On a local disk a driver writes each file in a folder of its own and moves it to its place from there, and moves
    there what it deletes. Whoever takes the store over takes that folder away first. From then on every write of the
    other one fails in the file system itself, even where it was stopped between looking at its lock and writing.

    An object store moves nothing, so records are added there with a condition: a segment's number must be free. Whoever
    takes over occupies the next number.
    """

    def __init__(self) -> None:
        self.staging: str | None = None
        self.put_new: Callable[[str, bytes], bool] | None = None  # writes a path that must not exist; False if it does

    def open(self) -> None:
        """Let go of what was set: this process is the driver no more."""
        self.staging = self.put_new = None

    def aside(self) -> str:
        """A free path in the folder of unfinished files."""
        return f"{self.staging}/{uuid.uuid4().hex}"

    def check(self) -> None:
        """Raises `StoreLockedError` where the folder of unfinished files has been taken away."""
        if self.staging is not None and not os.path.isdir(self.staging):
            raise lost(os.path.dirname(self.staging), "another driver")


def lost(store: str, who: str) -> StoreLockedError:
    """The error of a driver whose store was taken over."""
    fault = f"{who} has taken this store over from this one; what it recorded is kept, and the rest is trained again"
    return StoreLockedError(f"store {store}", [fault])


def staging_folder(store: str, token: str) -> str:
    return f"{store}/{STAGING}{token}"


def take_away(store: str, *, but: Path) -> None:
    """Take every driver's folder of unfinished files away from a local store, but for this one."""
    for folder in Path(store).glob(f"{STAGING}*"):
        if folder.name != but.name:
            _take(folder)


def _take(folder: Path) -> None:
    """Renamed first: that is one step, after which its driver's next write fails."""
    gone = folder.with_name(f".gone-{uuid.uuid4().hex}")
    with contextlib.suppress(FileNotFoundError):
        folder.rename(gone)
        shutil.rmtree(gone, ignore_errors=True)
