"""A part of the GPU's benchmark run on a CPU, on an encoder so small that only its course is of interest."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from benchmarks.gpu import packing
from benchmarks.gpu.clock import Deadline
from benchmarks.gpu.record import Record
from benchmarks.gpu.run import Run
from benchmarks.gpu.sizes import REHEARSAL, REHEARSED, Sizes

MINUTE: float = 60.0

MINI = replace(
    REHEARSAL,
    backbones={"mini": REHEARSED["tiny"] | {"vocab_size": 64, "hidden_size": 16, "intermediate_size": 24}},
    lengths=(8,),
    batch_size=2,
    adapter_size=4,
    correctness_trials=2,
    correctness_steps=3,
    launch_packs=(1, 2),
    packs=(1, 2),
    largest_pack=3,
    step_seconds=0.0,
    sweep_rates=2,
    sweep_seeds=1,
    sweep_epochs=1,
    sweep_rows=8,
    alone=1,
    memory_packs=(1, 2),
    profile_pack=2,
)

MakeRun = Callable[..., Run]


class Ticking:
    """A clock that goes on by a second whenever it is asked."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def __call__(self) -> float:
        self.seconds += 1
        return self.seconds


@pytest.fixture
def make_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> MakeRun:
    """Makes what a part is given; `ticks` is after how many looks at the clock its time is up."""
    monkeypatch.setattr(packing, "measure_rate", lambda: 1e12)

    def make(part: str, *, ticks: int | None = None, sizes: Sizes = MINI, task: str | None = None) -> Run:
        record = Record(tmp_path / f"{part}.json", {}, [part])
        record.begin(part)
        scratch = tmp_path / "scratch"
        scratch.mkdir(exist_ok=True)
        deadline = Deadline(time.monotonic() + MINUTE, time.monotonic) if ticks is None else Deadline(ticks, Ticking())
        return Run(
            part=part,
            device=torch.device("cpu"),
            sizes=sizes,
            deadline=deadline,
            record=record,
            scratch=scratch,
            task=task,
        )

    return make
