"""What a round plays on: the cluster, the disk, MLflow, the store, and the driver that is at work."""

from __future__ import annotations

import os
import random
import time
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from psutil import Process

from orchestrator.store import Store
from tests.chaos.bucket import Bucket
from tests.chaos.disk import Disk
from tests.chaos.driver import Driver
from tests.chaos.machine import NAMESPACE, Clock, MemoryLimit
from tests.chaos.nodes import Nodes
from tests.chaos.sweep import Ground
from tests.chaos.tracking import Database, Server

# A second driver that is refused says so within so long, however many others want the machine.
INTRUDER_S = 300.0


@dataclass(kw_only=True)
class Scene:
    """One round's stage. Mutable: drivers come and go."""

    ground: Ground
    nodes: Nodes
    disk: Disk
    mlflow: Database | Server
    folder: Path  # of the round: the sweep's file, what drivers said
    name: str
    random: random.Random
    bucket: Bucket | None = None  # for the store, in the place of the disk
    drivers: list[Driver] = field(default_factory=list)
    intruders: list[Driver] = field(default_factory=list)  # started on a store that another driver has
    interrupted: Driver | None = None  # the last one that was, by Ctrl-C
    stopped: list[Process] = field(default_factory=list)  # by SIGSTOP
    log: list[str] = field(default_factory=list)
    began: float = field(default_factory=time.monotonic)
    _counted: int = 0
    _counted_until: float = 0.0

    @property
    def store(self) -> Path | str:
        """A folder of the disk, or a URI where the sweep's store is in a bucket."""
        return self.disk.folder / self.name if self.bucket is None else self.bucket.uri(self.name)

    @cached_property
    def _reader(self) -> Store:
        return Store(self.store)

    def has_store(self) -> bool:
        if self.bucket is not None and self.bucket.is_away:
            return self._counted > 0
        try:
            return self._reader.exists()
        except Exception:  # the bucket is away
            return False

    @cached_property
    def clock(self) -> Clock:
        return Clock(self.folder / "clock")

    @cached_property
    def memory_limit(self) -> MemoryLimit:
        return MemoryLimit(f"adaptune-{self.name}-{os.getpid()}")

    @property
    def driver(self) -> Driver:
        return self.drivers[-1]

    def start(self) -> None:
        """Start a driver: the first one runs the sweep, a later one resumes it in one of the two ways there are."""
        again = self.drivers and self.has_store() and self.random.random() < 0.5
        sweep = str(self.folder / "sweep.yaml")
        what = ["resume", str(self.store)] if again else ["run", sweep, "--store", str(self.store)]
        options = ["--address", self.nodes.address, "--tracking-uri", self.mlflow.uri, "--json"]
        environment = {**self.ground.environment(), **self.clock.environment()}
        self.drivers.append(Driver([*what, *options], self.folder, environment, f"driver-{len(self.drivers)}"))
        self.may_be_refused()
        self.note(f"driver started: {what[0]}")

    def intrude(self) -> None:
        """Start a second driver on the store, in a container as far as processes go."""
        options = ["--address", self.nodes.address, "--tracking-uri", self.mlflow.uri]
        environment = {**self.ground.environment(), **self.clock.environment()}
        name = f"intruder-{len(self.intruders)}"
        arguments = ["resume", str(self.store), *options]
        self.intruders.append(Driver(arguments, self.folder, environment, name, within=NAMESPACE))

    def end_intruders(self) -> list[str]:
        """Wait for those that are to be refused; returns what they did that they should not have.

        One that comes when the driver has ended trains in its place, and is interrupted.
        """
        faults = []
        for intruder in self.intruders:
            if (status := intruder.wait(INTRUDER_S)) is None:
                intruder.interrupt()
                status = intruder.wait(INTRUDER_S)
            if status not in (0, 1, 2, 130):
                intruder.kill()
                faults.append(f"a second driver ended with {status}: {intruder.messages()[-2000:]}")
            self.note(f"second driver ended: {status}")
        self.intruders.clear()
        return faults

    def may_be_refused(self) -> None:
        """A driver that meets a storage that fails before it trains ends with status 2; one that trains waits."""
        if self.disk.is_full or (self.bucket is not None and self.bucket.is_away):
            self.driver.allowed |= {2}

    def finished(self) -> int:
        """The trials that have a finished record, as somebody else sees it; in a bucket, as of a second ago."""
        if self.bucket is not None and (self.bucket.is_away or time.monotonic() < self._counted_until):
            return self._counted
        self._counted_until = time.monotonic() + 1.0
        try:
            self._counted = sum(status.is_finished() for status in self._reader.statuses().values())
        except Exception:  # a store that is being made
            return 0
        return self._counted

    def note(self, what: str) -> None:
        self.log.append(f"{time.monotonic() - self.began:6.1f} s  {what}")
