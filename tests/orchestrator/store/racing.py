"""Drivers that fight for a store, each a process of its own, and in a process namespace of its own where there are any.

Run as a program it is one of them: it reads what to do from standard input and says on standard output what came of it.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import secrets
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from orchestrator.record import TrialRecord, TrialStatus
from orchestrator.store import Store, StoreLockedError, identity, lock

ROOT = Path(__file__).resolve().parents[3]
_NAMESPACE = ["unshare", "--pid", "--fork", "--mount-proc", "--kill-child"]
SILENCE_S = 3.0  # a living one gives sixty signs meanwhile


@functools.cache
def has_namespaces() -> bool:
    """Whether this process may make process namespaces."""
    try:
        return subprocess.run([*_NAMESPACE, "true"], capture_output=True, timeout=20).returncode == 0
    except (OSError, subprocess.TimeoutExpired):
        return False


class Racer:
    """A driver in a process that cannot see the others, all of which share a host name."""

    def __init__(self) -> None:
        command = [sys.executable, "-m", "tests.orchestrator.store.racing"]
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        if has_namespaces():
            command = [*_NAMESPACE, *command]
        else:
            environment["ADAPTUNE_TEST_NAMESPACE"] = str(secrets.randbelow(2**31))
        self._process = subprocess.Popen(
            command, env=environment, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self.hears()  # it has loaded

    def told(self, **what: Any) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(f"{json.dumps(what)}\n")
        self._process.stdin.flush()

    def hears(self) -> dict[str, Any]:
        """What it says next."""
        assert self._process.stdout is not None
        answer: dict[str, Any] = json.loads(self._process.stdout.readline())
        return answer

    def signal(self, number: int) -> None:
        """To the driver itself, which is a child of the process that made its namespace."""
        pid = self._process.pid
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split() if has_namespaces() else []
        os.kill(int(children[0]) if children else pid, number)

    def kill(self) -> None:
        with contextlib.suppress(OSError):
            self.signal(signal.SIGKILL)
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout):
            assert stream is not None
            with contextlib.suppress(OSError):
                stream.close()


def race(uri: str, racers: list[Racer], *, take_over: bool = False) -> tuple[list[Racer], list[dict[str, Any]]]:
    """Let drivers start on a store at the same moment. Those that won hold it, with a record each, until told to end.

    Returns the winners, and what each of all found.
    """
    at = time.time() + 0.1
    for number, racer in enumerate(racers):
        racer.told(do="race", uri=uri, at=at, take_over=take_over, name=f"won-{number}-{secrets.token_hex(4)}")
    answers = [racer.hears() for racer in racers]
    return [racer for racer, answer in zip(racers, answers, strict=True) if answer["won"]], answers


def _record(trial_id: str) -> TrialRecord:
    return TrialRecord(
        sweep="race", trial_id=trial_id, config_id=trial_id, task="t", backbone="b", method="m", seed=0,
        status=TrialStatus.COMPLETED, hyperparameters={},
    )  # fmt: skip


def _race(what: dict[str, Any]) -> None:
    store = Store(what["uri"])
    time.sleep(max(0.0, what["at"] - time.time()))
    won = False
    try:
        with store.lock(take_over=what["take_over"]):
            there = sorted(store.statuses())
            store.append([_record(what["name"])])
            won = True
            _say(won=True, there=there, name=what["name"])
            sys.stdin.readline()
            store.append([_record(f"{what['name']}-end")])
        _say(left=True)
    except StoreLockedError as error:
        _say(won=False, why=str(error)) if not won else _say(left=False)


def _hold(what: dict[str, Any]) -> None:
    """Record without end, until another driver takes the store over."""
    store = Store(what["uri"])
    recorded = 0
    try:
        with store.lock():
            _say(held=True)
            while True:
                if what.get("late"):  # it looks at its lock, and then for a long time does not come to write
                    store._check_lock()
                    store._segments.add(_table(recorded))
                else:
                    store.append([_record(f"held-{recorded:06d}")])
                recorded += 1
    except StoreLockedError as error:
        _say(lost=str(error), recorded=recorded)


def _table(number: int) -> Any:
    from orchestrator.store.rows import table_from_records

    return table_from_records([_record(f"held-{number:06d}")])


def _say(**what: Any) -> None:
    sys.stdout.write(f"{json.dumps(what)}\n")
    sys.stdout.flush()


def main() -> None:
    lock.BEAT_EVERY_S, lock.SILENCE_S, lock.LOOK_EVERY_S = 0.05, SILENCE_S, 0.05
    if fake := os.environ.get("ADAPTUNE_TEST_NAMESPACE"):
        identity.pid_namespace = lambda: int(fake)
    _say(ready=True)
    for line in sys.stdin:
        what = json.loads(line)
        {"race": _race, "hold": _hold}[what["do"]](what)


if __name__ == "__main__":
    main()
