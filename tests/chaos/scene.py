"""What a round plays on: the cluster, the disk, MLflow, the store, and the driver that is at work."""

from __future__ import annotations

import random
import time
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from orchestrator.store import Store
from tests.chaos.disk import Disk
from tests.chaos.driver import Driver
from tests.chaos.nodes import Nodes
from tests.chaos.sweep import Ground
from tests.chaos.tracking import Database, Server


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
    drivers: list[Driver] = field(default_factory=list)
    log: list[str] = field(default_factory=list)
    began: float = field(default_factory=time.monotonic)

    @property
    def store(self) -> Path:
        return self.disk.folder / self.name

    @cached_property
    def _reader(self) -> Store:
        return Store(self.store)

    @property
    def driver(self) -> Driver:
        return self.drivers[-1]

    def start(self) -> None:
        """Start a driver: the first one runs the sweep, a later one resumes it in one of the two ways there are."""
        again = self.drivers and self.store.exists() and self.random.random() < 0.5
        sweep = str(self.folder / "sweep.yaml")
        what = ["resume", str(self.store)] if again else ["run", sweep, "--store", str(self.store)]
        options = ["--address", self.nodes.address, "--tracking-uri", self.mlflow.uri, "--json"]
        self.drivers.append(Driver([*what, *options], self.folder, self.ground.environment(), len(self.drivers)))
        self.may_be_refused()
        self.note(f"driver started: {what[0]}")

    def may_be_refused(self) -> None:
        """A driver that meets a full disk before it trains says so and ends with status 2; one that trains waits."""
        if self.disk.is_full:
            self.driver.allowed |= {2}

    def finished(self) -> int:
        """The trials that have a finished record, as somebody else sees it."""
        try:
            return sum(status.is_finished() for status in self._reader.statuses().values())
        except Exception:  # a store that is being made
            return 0

    def note(self, what: str) -> None:
        self.log.append(f"{time.monotonic() - self.began:6.1f} s  {what}")
