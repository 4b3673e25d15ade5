"""What a sweep will cost: time, memory and packs of the trials that are left, and how far off the figures may be.

Each trial's time comes from the nearest throughput that was measured. How trials share engines is simulated.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from orchestrator.estimate.expected_epochs import expected_epochs, has_expectation
from orchestrator.estimate.makespan import Load, Makespan, play
from orchestrator.estimate.memory import memory_at_most
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
# Taking up a task that is tokenised already, where that was not measured.
TASK_S = 0.2
# Changing to another backbone, whatever its size, and for each byte of it: reading, converting, the tokenizer.
CHANGE_S, CHANGE_S_PER_BYTE = 0.5, 2e-9
# Building the model of a trial and joining it to a pack.
JOIN_S = 0.05
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
    book = ThroughputTable(measurements.throughputs, measurements.rate_of)
    known: dict[tuple, Timing] = {}
    timings = []
    for each in costs:
        key = (each.kind, each.work)
        if key not in known:
            known[key] = book.timing(each.kind, each.work)
        timings.append(known[key])
    layout = lay_out({"GPU": devices} if measurements.is_gpu else {"CPU": devices})
    concurrent = layout.concurrent_trials(len(trials), max_concurrent_trials)
    slower = 1.0 if measurements.is_gpu else 1 / (1 - CONTROL_CORES / max(2, devices))
    limits = [each.limit(timing, measurements.free_bytes) for each, timing in zip(costs, timings, strict=True)]

    def played(epochs: Sequence[int]) -> Makespan:
        loads = [
            _load(trial, each, timing, limit, trained, measurements.task_s or {}, slower)
            for trial, each, timing, limit, trained in zip(trials, costs, timings, limits, epochs, strict=True)
        ]
        return play(loads, engines=devices, concurrent=concurrent)

    most = [trial.config.num_epochs for trial in trials]
    longest = played(most)
    draws = _drawn_epochs(trials, most, early_stopping)
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
        most_per_pack=min(max(limits), concurrent),
        memory_bytes=memory,
        is_memory_measured=is_measured,
        memory_by_backbone=memory_by_backbone,
        device_seconds=_device_seconds(trials, weights, float(np.mean([span.busy_s for span in spans]))),
    )


def _load(
    trial: PlannedTrial,
    each: TrialCost,
    timing: Timing,
    limit: int,
    epochs: int,
    task_s: Mapping[str, float],
    slower: float,
) -> Load:
    """One trial that trains so many of its epochs; it is tested if those are all."""
    work = each.work
    is_whole = epochs == work.num_epochs
    once = [(each.kind.task, task_s.get(each.kind.task, TASK_S))]  # of an engine that holds this backbone
    if work.once_key is not None:
        once.append((work.once_key, timing.once_s * slower))
    return Load(
        key=trial.pack_key,
        num_steps=max(1.0, work.num_steps * epochs / work.num_epochs),
        fixed_s=timing.fixed_s * slower,
        trial_s=timing.trial_s * slower,
        own_s=JOIN_S + (epochs * timing.evaluation_s + (timing.test_s if is_whole else 0)) * slower,
        limit=limit,
        once=tuple(once),
        backbone=each.kind.backbone,
        load_s=CHANGE_S + CHANGE_S_PER_BYTE * each.backbone_bytes,
    )


def _drawn_epochs(trials: Sequence[PlannedTrial], most: Sequence[int], rule: Rule | str) -> list[list[int]]:
    """The epochs of each trial, for some orders of their scores; none where the rule leaves no expectation."""
    if not has_expectation(rule):
        return []
    groups: dict[tuple[str, str, str], list[int]] = defaultdict(list)
    for place, trial in enumerate(trials):
        groups[trial.config.task, trial.config.backbone, trial.config.method].append(place)
    rng = np.random.default_rng(0)
    draws = []
    for _ in range(DRAWS):
        epochs = list(most)
        for (task, *_), places in groups.items():
            longest = max(most[place] for place, trial in enumerate(trials) if trial.config.task == task)
            trained = expected_epochs(rule, [most[place] for place in places], longest, rng)
            for place, count in zip(places, trained, strict=True):
                epochs[place] = count
        draws.append(epochs)
    return draws


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
