"""A part of the GPU's benchmark run on a CPU, on an encoder so small that only its course is of interest."""

from __future__ import annotations

import functools
import importlib
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

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
Complete = Callable[[str], tuple[Run, list[Mapping[str, Any]]]]


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
    return functools.partial(_make_run, tmp_path)


@pytest.fixture(scope="module")
def complete(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Complete]:
    """A part measured with all the time it takes, once for all who look at it: the run and its points."""

    @functools.cache
    def run_of(part: str) -> tuple[Run, list[Mapping[str, Any]]]:
        run = _make_run(tmp_path_factory.mktemp(part), part)
        return run, measure(run)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(packing, "measure_rate", lambda: 1e12)
        yield run_of


def measure(run: Run) -> list[Mapping[str, Any]]:
    """Measure a part; gives its points."""
    importlib.import_module(f"benchmarks.gpu.{run.part}").measure(run)
    return run.record.content["parts"][run.part]["points"]


def _make_run(
    folder: Path, part: str, *, ticks: int | None = None, sizes: Sizes = MINI, task: str | None = None
) -> Run:
    record = Record(folder / f"{part}.json", {}, [part])
    record.begin(part)
    scratch = folder / "scratch"
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
