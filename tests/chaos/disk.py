"""The disk of the stores: a small one that can be full."""

from __future__ import annotations

import contextlib
import os
import resource
import subprocess
from pathlib import Path

_SIZE = 48 * 2**20
_BLOCKS = (2**20, 2**14, 2**10, 1)


class Disk:
    """A folder that can be filled to the last byte.

    A file system of its own where one may be mounted; elsewhere the driver's process alone is kept from writing files,
    which it meets as files that are too large.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        mount = ["mount", "-t", "tmpfs", "-o", f"size={_SIZE}", "adaptune-chaos", str(folder)]
        self.is_mounted = _runs(mount)
        self._limited: int | None = None

    @property
    def _ballast(self) -> Path:
        return self.folder / ".ballast"

    @property
    def is_full(self) -> bool:
        return self._ballast.exists() or self._limited is not None

    def fill(self, driver: int) -> None:
        """Leave no room, for a driver of that process id."""
        if not self.is_mounted:
            _limit(driver, 0)
            self._limited = driver
            return
        with open(self._ballast, "ab", buffering=0) as file:
            for block in _BLOCKS:
                with contextlib.suppress(OSError):
                    while True:
                        file.write(bytes(block))

    def free(self) -> None:
        """Give the room back."""
        self._ballast.unlink(missing_ok=True)
        if self._limited is not None:
            with contextlib.suppress(ProcessLookupError):
                _limit(self._limited, resource.RLIM_INFINITY)
            self._limited = None

    def close(self) -> None:
        if self.is_mounted:
            _runs(["umount", "-l", str(self.folder)])


def _limit(process: int, size: int) -> None:
    _, hard = resource.prlimit(process, resource.RLIMIT_FSIZE)
    resource.prlimit(process, resource.RLIMIT_FSIZE, (size, hard))


def _runs(command: list[str]) -> bool:
    if os.name != "posix":
        return False
    with contextlib.suppress(OSError):
        return subprocess.run(command, capture_output=True, check=False).returncode == 0
    return False
