"""A short measurement of this machine: a few real steps and evaluations of the trials that a sweep would train.

As many processes measure at once as the machine runs engines, since those share its caches and its memory's bandwidth.
Each does what an engine does, on rows drawn from the task; nothing of it is kept but the times.
"""

from __future__ import annotations

import os
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from multiprocessing import get_context
from typing import Any

import torch

from trainables.estimate.benchmark import BenchmarkEngine, Findings, Sample
from trainables.estimate.throughput import Throughput
from trainables.faults import FaultsError

# The longest that a process waits for the others before a measurement.
PATIENCE_S = 300.0


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """What a measurement found. Seconds are those of an engine that has its cores to itself."""

    host: str
    device: str
    engines: int
    start_s: float  # until the engines stood: imports, device, backbone
    task_s: dict[str, float]  # fingerprint -> until an engine has taken up a task that is tokenised already
    core_share: float  # of its cores' time, what the measuring processes got; 1 on a machine that does nothing else
    throughputs: tuple[Throughput, ...]
    faults: tuple[str, ...] = ()  # of samples that could not be measured


def calibrate(
    samples: Sequence[Sample], *, engines: int, num_threads: int | None, seconds: float, note: Callable[[str], None]
) -> Calibration:
    """Measure the samples in so many processes at once, for about so many seconds beside loading.

    `note` hears what goes on. Raises `FaultsError` where nothing could be measured.
    """
    context = get_context("spawn")
    barrier = context.Barrier(engines)
    quiet = {"OMP_NUM_THREADS": str(num_threads or 1), "TOKENIZERS_PARALLELISM": "false"}  # as for engines
    before = {name: os.environ.get(name) for name in quiet}
    os.environ.update(quiet)
    note(f"measuring {len(samples)} kinds of trials on {engines} engines")
    try:
        with context.Pool(engines, initializer=_meet, initargs=(barrier,)) as pool:
            tasks = [(list(samples), num_threads, index, seconds) for index in range(engines)]
            found = pool.starmap_async(_measure_all, tasks, chunksize=1).get(PATIENCE_S + 20 * seconds)
    except Exception as error:  # a process that died, or waited too long for another
        raise FaultsError("calibration", [f"the measurement must come to an end, but {error!r}"]) from error
    finally:
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})
    return combine(found)


def combine(found: Sequence[Findings]) -> Calibration:
    """The mean over processes. Raises `FaultsError` where no sample was measured."""
    faults = tuple(dict.fromkeys(fault for each in found for fault in each.faults))
    throughputs = [
        _mean([throughput for throughput in same if throughput is not None])
        for same in zip(*(each.throughputs for each in found), strict=True)
        if any(throughput is not None for throughput in same)
    ]
    if not throughputs:
        raise FaultsError("calibration", list(faults) or ["there must be something to measure, but there is nothing"])
    tasks = {task for each in found for task in each.task_s}
    return Calibration(
        host=found[0].host,
        device=found[0].device,
        engines=len(found),
        start_s=statistics.fmean(each.start_s for each in found),
        task_s={task: statistics.fmean(each.task_s[task] for each in found if task in each.task_s) for task in tasks},
        core_share=statistics.fmean(each.core_share for each in found),
        throughputs=tuple(throughputs),
        faults=faults,
    )


def _mean(throughputs: Sequence[Throughput]) -> Throughput:
    peaks = [throughput.memory_bytes for throughput in throughputs if throughput.memory_bytes is not None]
    return replace(
        throughputs[0],
        fixed_s=statistics.fmean(throughput.fixed_s for throughput in throughputs),
        trial_s=statistics.fmean(throughput.trial_s for throughput in throughputs),
        evaluation_s=statistics.fmean(throughput.evaluation_s for throughput in throughputs),
        once_s=statistics.fmean(throughput.once_s for throughput in throughputs),
        memory_bytes=max(peaks, default=None),
    )


_barrier: Any = None  # of a measuring process: where it meets the others


def _meet(barrier: Any) -> None:
    global _barrier
    _barrier = barrier


def _measure_all(samples: Sequence[Sample], num_threads: int | None, index: int, seconds: float) -> Findings:
    """In a process of its own: all samples, each at the same time as the other processes."""
    gpus = torch.cuda.device_count()
    engine = BenchmarkEngine(device=f"cuda:{index % gpus}" if gpus else None, num_threads=num_threads)
    return engine.measure_all(samples, seconds=seconds, wait=lambda: _barrier.wait(PATIENCE_S))
