"""The driver as a user starts it: a process of its own, which can be interrupted, killed and started again."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import psutil

from tests.chaos.machine import CLOCK_FOLDER

ROOT = Path(__file__).resolve().parents[2]


class Driver:
    """One `adaptune run` or `adaptune resume`."""

    def __init__(
        self,
        arguments: Sequence[str],
        folder: Path,
        environment: Mapping[str, str],
        name: str,
        *,
        within: Sequence[str] = (),
    ) -> None:
        """`within`: the command that starts it, where it is to run apart from other processes."""
        self.arguments = list(arguments)
        self._is_within = bool(within)
        self._out, self._err = (folder / f"{name}.{stream}" for stream in ("out", "err"))
        with self._out.open("wb") as out, self._err.open("wb") as err:
            self._process = subprocess.Popen(
                [*within, sys.executable, "-m", "adaptune", *arguments],
                cwd=folder,
                env={**environment, "PYTHONPATH": os.pathsep.join((str(CLOCK_FOLDER), str(ROOT)))},
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                start_new_session=True,  # a Ctrl-C for whoever runs the rounds is none for it
            )
        self.allowed: set[int] = set()  # exit statuses, beside that of a sweep that came to its end

    @property
    def pid(self) -> int:
        return self._process.pid

    def poll(self) -> int | None:
        """The exit status; None while it runs."""
        return self._process.poll()

    def interrupt(self) -> None:
        self._signal(signal.SIGINT)

    def hang_up(self) -> None:
        """As when the terminal is closed."""
        self._signal(signal.SIGHUP)

    def kill(self) -> None:
        self._signal(signal.SIGKILL)

    def wait(self, timeout_s: float) -> int | None:
        try:
            return self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            return None

    def _signal(self, number: int) -> None:
        if self.poll() is not None:
            return
        with contextlib.suppress(psutil.Error, ProcessLookupError):
            inner = psutil.Process(self.pid).children() if self._is_within and number != signal.SIGKILL else ()
            os.kill(inner[0].pid if inner else self.pid, number)

    def answer(self) -> Mapping[str, Any] | None:
        """What it said on standard output, once it came to an end of its own; None where it said nothing.

        Raises `ValueError` where anything else is there, which programs that read it would choke on.
        """
        said = self._out.read_text(encoding="utf-8").strip()
        return json.loads(said) if said else None

    def messages(self) -> str:
        """What it said to its user."""
        return self._err.read_text(encoding="utf-8", errors="replace")
