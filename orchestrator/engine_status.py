"""EngineStatus: what an engine is doing right now, told by scheduling, kept by the store and shown by the commands."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class EngineStatus:
    """One engine at one moment. Between packs it has no task, no method, no limit and no rate."""

    engine: str  # host and device
    task: str | None = None
    method: str | None = None
    num_trials: int = 0  # that train together
    num_waiting: int = 0  # handed to it and not yet in training
    limit: int | None = None  # how many it lets train together
    examples_per_second: float | None = None  # of all its trials together, in training

    @property
    def is_idle(self) -> bool:
        return not self.num_trials and not self.num_waiting
