"""The folder where a Ray of this machine keeps its sockets and logs: private, with a short path. Needs no Ray."""

from __future__ import annotations

import logging
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from trainables.faults import FaultsError

logger = logging.getLogger(__name__)

# The most bytes that the path of a Unix socket may have: `sun_path` of sys/un.h without its final zero.
MOST_BYTES = 103 if sys.platform == "darwin" else 107
# What is added to TMPDIR: the folder's own name, and what Ray adds to that, with the longest process id.
PREFIX = "ray-"
_FOLDER = f"/{PREFIX}12345678"
_SOCKET = "/session_2026-01-01_00-00-00_000000_4194304/sockets/plasma_store"
# Where a short folder is looked for, best first: /dev/shm is memory, and Ray writes its logs there too.
SHORT_PLACES = ("/tmp", "/var/tmp", "/dev/shm")


@contextmanager
def ray_folder(tell: Callable[[str], None]) -> Iterator[str | None]:
    """A folder to start Ray in, for as long as Ray runs; None, for Ray's own choice, on Windows.

    No other user can read or enter it, and no other process has it; Ray's own would be open to every user of the
    machine. It is removed at the end, unless messages of the level debug are logged, since Ray's logs lie in it. It is
    made below RAY_TMPDIR or TMPDIR. A batch system may set that to a path so long that no socket can have it: then
    it is made below one of `SHORT_PLACES`, and `tell` is given one line about it. Raises `FaultsError` where none can
    be made.
    """
    if sys.platform == "win32":  # it has no such sockets, and a temporary folder for each user
        yield None
        return
    folder = _made(tell)
    try:
        yield folder
    finally:
        if logger.isEnabledFor(logging.DEBUG):
            logger.debug("Ray's logs stay in %s", folder)
        else:
            shutil.rmtree(folder, ignore_errors=True)


def _made(tell: Callable[[str], None]) -> str:
    variable = "RAY_TMPDIR" if "RAY_TMPDIR" in os.environ else "TMPDIR"
    wanted = os.environ.get(variable, "/tmp")
    length, most = _length(wanted), MOST_BYTES - _length(_FOLDER + _SOCKET)
    folder = _private_folder(wanted)
    if folder is not None:
        return folder
    folder = next((made for place in SHORT_PLACES if (made := _private_folder(place)) is not None), None)
    if folder is None:
        rule = f"Ray's sockets need a folder whose path has at most {most} bytes"
        came = f"{variable} has {length} and none can be made below {', '.join(SHORT_PLACES)}"
        raise FaultsError("Ray", [f"{rule}, but {came}; set RAY_TMPDIR to a short folder of this machine"])
    reason = "cannot be written"
    if length > most:
        reason = f"is too long for Ray's sockets ({length} bytes, at most {most})"
    tell(f"{variable} {reason}: Ray works in {folder} instead.")
    return folder


def _private_folder(place: str) -> str | None:
    """A new folder there for this user alone; None where it cannot be made or no socket would fit."""
    if _length(place + _FOLDER + _SOCKET) > MOST_BYTES:
        return None
    try:
        return tempfile.mkdtemp(prefix=PREFIX, dir=place)
    except OSError:
        return None


def _length(path: str) -> int:
    return len(os.fsencode(path))
