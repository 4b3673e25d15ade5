"""The folder in which a Ray of this machine keeps its sockets and logs, whose path must be short. Needs no Ray."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from trainables.faults import FaultsError

# The most bytes that the path of a Unix socket may have: `sun_path` of sys/un.h without its final zero.
MOST_BYTES = 103 if sys.platform == "darwin" else 107
# What Ray adds to its folder, with the longest process id, and what it adds to TMPDIR to have that folder.
_SOCKET = "/session_2026-01-01_00-00-00_000000_4194304/sockets/plasma_store"
_RAY = "/ray"
# Where a short folder is looked for, best first: /dev/shm is memory, and Ray writes its logs there too.
SHORT_PLACES = ("/tmp", "/var/tmp", "/dev/shm")


@contextmanager
def ray_folder(tell: Callable[[str], None]) -> Iterator[str | None]:
    """The folder to start Ray in, for as long as Ray runs; None where the one that Ray takes by itself will do.

    Ray puts its sockets below RAY_TMPDIR or TMPDIR, and a batch system may set that to a path so long that no socket
    can have it. Then this is a new folder below one of `SHORT_PLACES` that no other user can read and no other process
    has, removed at the end, and `tell` is given one line about it. Raises `FaultsError` where none can be made.
    """
    variable = "RAY_TMPDIR" if "RAY_TMPDIR" in os.environ else "TMPDIR"
    wanted = os.environ.get(variable, "/tmp")
    length, most = _length(wanted), MOST_BYTES - _length(_RAY + _SOCKET)
    if sys.platform == "win32" or length <= most:  # Windows has no such sockets
        yield None
        return
    folder = _short_folder()
    if folder is None:
        rule = f"Ray's sockets need a folder whose path has at most {most} bytes"
        came = f"{variable} has {length} and none can be made below {', '.join(SHORT_PLACES)}"
        raise FaultsError("Ray", [f"{rule}, but {came}; set RAY_TMPDIR to a short folder of this machine"])
    tell(f"{variable} is too long for Ray's sockets ({length} bytes, at most {most}): Ray works in {folder} instead.")
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _short_folder() -> str | None:
    for place in SHORT_PLACES:
        if _length(f"{place}/adaptune-ray-12345678{_SOCKET}") > MOST_BYTES:
            continue
        try:
            return tempfile.mkdtemp(prefix="adaptune-ray-", dir=place)  # for this user alone
        except OSError:
            continue
    return None


def _length(path: str) -> int:
    return len(os.fsencode(path))
