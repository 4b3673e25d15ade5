"""What a sweep will cost: time, memory and packs of the trials that are left, and how far off the figures may be.

Each trial's time comes from the nearest throughput that was measured. How trials share engines is simulated.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from orchestrator.estimate.makespan import Makespan, play
from orchestrator.estimate.memory import memory_at_most
from orchestrator.estimate.timed_trials import CHANGE_S, TimedTrials
from orchestrator.planning.plan import PlannedTrial
from orchestrator.scheduling.engine_layout import lay_out
from orchestrator.spec.early_stopping import NONE, Rule
from trainables.estimate.throughput import DeviceRate, Source, Throughput, ThroughputTable, Timing

if TYPE_CHECKING:
    from trainables.estimate.trial_cost import TrialCost

# Until Ray and the processes of the first trials stand, beside the engines; and from the last trial to the report.
RAY_START_S, END_S = 9.0, 6.0
# Until an engine stands, where that was not measured: imports, the device, the backbone.
ENGINE_START_S = 7.0
# Changing to another backbone, for each byte of it, beside `CHANGE_S`: reading and converting.
CHANGE_S_PER_BYTE = 2e-9
# Cores that driver, pool and trials take from the engines of a machine whose engines are its cores.
CONTROL_CORES = 0.08
# Orders of scores that are drawn where early stopping decides how long trials train.
DRAWS = 5


@dataclass(frozen=True, kw_only=True)
class Measurements:
    """What an estimate stands on.

    Args:
        throughputs: what was measured, the best source first.
        rate_of: what this device does in a second, by precision, where nothing was measured.
        start_s: until engines stood, and `task_s` until each took up a task, by fingerprint; None where not measured.
        free_bytes: what an engine's packs may use; None where the system cannot tell.
        is_gpu: whether devices are GPUs; else they are cores.
    """

    throughputs: Sequence[Throughput]
    rate_of: Callable[[str], DeviceRate]
    start_s: float | None = None
    task_s: Mapping[str, float] | None = None
    free_bytes: int | None = None
    is_gpu: bool = False


@dataclass(frozen=True, kw_only=True)
class SweepEstimate:
    """What the trials that are left will take. Seconds are from the command to the report, on so many devices."""

    devices: int
    seconds: float
    error: float  # relative: the time should lie between seconds / (1 + error) and seconds * (1 + error)
    source: Source  # of most of the time
    shares: Mapping[Source, float]  # source -> share of the time that it tells
    most_seconds: float  # if early stopping stopped nobody
    start_seconds: float  # of these, before the first step and after the last
    expected_epochs: int | None  # None where the rule does not say whom it stops
    most_epochs: int
    packs: int
    trials_per_pack: float  # that train together, over the time
    most_per_pack: int
    memory_bytes: int  # of one device at its fullest
    is_memory_measured: bool
    device_seconds: Mapping[tuple[str, str, str], float]  # of the devices together, by task, backbone and method
    memory_by_backbone: Mapping[str, int]  # bytes of one device at its fullest while it holds this one

    @property
    def low_seconds(self) -> float:
        return self.seconds / (1 + self.error)

    @property
    def high_seconds(self) -> float:
        return self.seconds * (1 + self.error)


def estimate_sweep(
    trials: Sequence[PlannedTrial],
    costs: Sequence[TrialCost],
    measurements: Measurements,
    *,
    devices: int,
    max_concurrent_trials: int | None = None,
    early_stopping: Rule | str = NONE,
) -> SweepEstimate:
    """Estimate what training these trials takes, in their order, each with its cost. There must be any."""
    timed = time_trials(trials, costs, measurements)
    layout = lay_out({"GPU": devices} if measurements.is_gpu else {"CPU": devices})
    concurrent = layout.concurrent_trials(len(trials), max_concurrent_trials)
    slower = slowdown(devices, is_gpu=measurements.is_gpu)
    timings, limits = timed.timings, timed.limits

    def played(epochs: Sequence[int]) -> Makespan:
        loads, most_each = timed.loads(epochs, slower=slower), layout.most_each(concurrent)
        return play(loads, engines=devices, concurrent=concurrent, most_each=most_each)

    most = timed.most_epochs
    longest = played(most)
    draws = timed.drawn_epochs(early_stopping, np.random.default_rng(0), DRAWS)
    spans = [played(epochs) for epochs in draws] or [longest]
    start_s = RAY_START_S + END_S + (ENGINE_START_S if measurements.start_s is None else measurements.start_s)
    weights = [timing.step_s(1) * each.work.num_steps for each, timing in zip(costs, timings, strict=True)]
    shares = _shares(timings, weights)
    memory, is_measured = memory_at_most(costs, limits, concurrent, devices, measurements.throughputs)
    places: dict[str, list[int]] = defaultdict(list)
    for place, trial in enumerate(trials):
        places[trial.config.backbone].append(place)
    memory_by_backbone = {
        backbone: memory_at_most(
            [costs[i] for i in own], [limits[i] for i in own], concurrent, devices, measurements.throughputs
        )[0]
        for backbone, own in places.items()
    }
    return SweepEstimate(
        devices=devices,
        seconds=start_s + float(np.mean([span.seconds for span in spans])),
        error=float(np.average([timing.error for timing in timings], weights=weights)),
        source=max(shares, key=lambda source: shares[source]),
        shares=shares,
        most_seconds=start_s + longest.seconds,
        start_seconds=start_s,
        expected_epochs=_expected(draws, most, early_stopping),
        most_epochs=sum(most),
        packs=round(float(np.mean([span.packs for span in spans]))),
        trials_per_pack=float(np.mean([span.mean_pack_size for span in spans])),
        most_per_pack=min(max(limits), layout.most_each(concurrent) or concurrent),
        memory_bytes=memory,
        is_memory_measured=is_measured,
        memory_by_backbone=memory_by_backbone,
        device_seconds=_device_seconds(trials, weights, float(np.mean([span.busy_s for span in spans]))),
    )


def time_trials(trials: Sequence[PlannedTrial], costs: Sequence[TrialCost], measurements: Measurements) -> TimedTrials:
    """What each trial takes, from the throughput that comes nearest to it."""
    book = ThroughputTable(measurements.throughputs, measurements.rate_of)
    known: dict[tuple, Timing] = {}
    timings = []
    for each in costs:
        key = (each.kind, each.work)
        if key not in known:
            known[key] = book.timing(each.kind, each.work)
        timings.append(known[key])
    return TimedTrials(
        trials=trials,
        kinds=[each.kind.task for each in costs],
        backbones=[each.kind.backbone for each in costs],
        timings=timings,
        works=[each.work for each in costs],
        limits=[each.limit(timing, measurements.free_bytes) for each, timing in zip(costs, timings, strict=True)],
        task_s=measurements.task_s or {},
        change_s={each.kind.backbone: CHANGE_S + CHANGE_S_PER_BYTE * each.backbone_bytes for each in costs},
    )


def slowdown(devices: int, *, is_gpu: bool) -> float:
    """How many times as long engines take that share the machine's cores with driver, pool and trials."""
    return 1.0 if is_gpu else 1 / (1 - CONTROL_CORES / max(2, devices))


def _expected(draws: Sequence[Sequence[int]], most: Sequence[int], rule: Rule | str) -> int | None:
    if isinstance(rule, str):
        return sum(most)
    return round(float(np.mean([sum(epochs) for epochs in draws]))) if draws else None


def _shares(timings: Sequence[Timing], weights: Sequence[float]) -> dict[Source, float]:
    shares: dict[Source, float] = defaultdict(float)
    for timing, weight in zip(timings, weights, strict=True):
        shares[timing.source] += weight / sum(weights)
    return dict(shares)


def _device_seconds(
    trials: Sequence[PlannedTrial], weights: Sequence[float], busy_s: float
) -> dict[tuple[str, str, str], float]:
    """Who takes the time: that of all devices, by task, backbone and method."""
    sums: dict[tuple[str, str, str], float] = defaultdict(float)
    for trial, weight in zip(trials, weights, strict=True):
        sums[trial.task, trial.config.backbone, trial.config.method] += weight
    return {group: busy_s * each / sum(weights) for group, each in sums.items()}
