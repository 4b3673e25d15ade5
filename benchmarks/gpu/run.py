"""What a part is given: the device, the sizes, its deadline, and where its numbers go."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from benchmarks.gpu.clock import Deadline
from benchmarks.gpu.record import Quantity, Record, unmeasured
from benchmarks.gpu.sizes import Sizes

NO_TIME = "no time was left"


@dataclass(kw_only=True)
class Run:
    """One part's view of the run."""

    part: str
    device: torch.device
    sizes: Sizes
    deadline: Deadline
    record: Record
    scratch: Path  # a folder for files that nobody needs afterwards
    task: str | None = None  # the task folder that the sweep trains on; None: a generated task
    left_out: list[str] = field(default_factory=list)  # what there was no time for

    def add(self, where: Mapping[str, Any], quantities: Mapping[str, Quantity]) -> None:
        self.record.add(self.part, where, quantities)

    def note(self, text: str) -> None:
        self.record.note(self.part, text)

    def leave_out(self, where: Mapping[str, Any], units: Mapping[str, str], reason: str = NO_TIME) -> None:
        """Keep a point as not measured. Without another reason it was for want of time, and the part is cut short."""
        if reason == NO_TIME:
            self.left_out.append(", ".join(f"{name} {value}" for name, value in where.items()))
        self.add(where, {name: unmeasured(unit, reason) for name, unit in units.items()})
