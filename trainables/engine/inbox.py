"""Trials waiting for an engine, handed in from any thread."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable

from trainables.training.running_trial import Job


class Inbox:
    """A queue of jobs from which those that can train together are taken together, the oldest first."""

    def __init__(self) -> None:
        self._jobs: deque[Job] = deque()
        self._changed = threading.Condition()
        self._is_closed = False

    def put(self, job: Job) -> None:
        with self._changed:
            self._jobs.append(job)
            self._changed.notify_all()

    def close(self) -> None:
        """Let `wait` return False once the inbox is empty."""
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()

    def wait(self) -> bool:
        """Wait until a job is there; False where none will come any more."""
        with self._changed:
            self._changed.wait_for(lambda: self._jobs or self._is_closed)
            return bool(self._jobs)

    def take(self, count: int, accept: Callable[[Job], bool]) -> list[Job]:
        """Take out up to `count` jobs that are accepted, in the order they came."""
        taken: list[Job] = []
        with self._changed:
            for job in list(self._jobs):
                if len(taken) < count and accept(job):
                    taken.append(job)
                    self._jobs.remove(job)
        return taken

    def withdraw(self, job: Job) -> bool:
        """Take out a job that still waits; False where an engine has it, or it never was here."""
        with self._changed:
            is_here = job in self._jobs
            if is_here:
                self._jobs.remove(job)
        return is_here

    def __contains__(self, job: Job) -> bool:
        with self._changed:
            return job in self._jobs

    def __len__(self) -> int:
        return len(self._jobs)
