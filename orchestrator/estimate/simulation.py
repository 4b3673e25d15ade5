"""A sweep on clusters of several sizes: how long each takes, how busy it is, what it costs, where more stops paying.

Nothing here reads a clock, a file or a random number that is not seeded.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

from orchestrator.estimate.makespan import Load, NeverEndsError, play
from orchestrator.estimate.money import cost_of
from orchestrator.estimate.outages import Outages
from orchestrator.scheduling.engine_layout import EngineLayout, lay_out
from trainables.faults import FaultsError

# Trials that a driver starts in a second at most: measured with trials that train nothing (benchmarks/NOTES.md).
STARTS_PER_S = 83.0
# More devices stop paying where one that is added does less than this share of what the first ones do each.
LEAST_WORTH = 0.5


@dataclass(frozen=True, kw_only=True)
class Nodes:
    """Equal nodes, with GPUs or without. A device is a GPU, or a core of nodes without one, which has one engine."""

    count: int
    gpus: int  # of each node
    cpus: int = 1  # of each node, where it has no GPU
    engines_per_gpu: int = 1

    @property
    def layout(self) -> EngineLayout:
        if self.gpus:
            return lay_out({"GPU": self.count * self.gpus}, engines_per_gpu=self.engines_per_gpu)
        return lay_out({"CPU": self.count * self.cpus})

    @property
    def devices(self) -> int:
        return self.count * (self.gpus or self.cpus)


@dataclass(frozen=True, kw_only=True)
class Simulated:
    """What came of the sweep on a cluster of one size."""

    nodes: int
    devices: int
    seconds: float  # from the command to the report
    utilisation: float  # share of the time that engines are up, or about to be, in which they train
    cost: float | None  # of all devices for that time
    failures: int  # of nodes
    begun_anew: int  # how often a trial lost its node and began anew
    packs: int
    trials_per_pack: float  # that train together, over the time


@dataclass(frozen=True, kw_only=True)
class Step:
    """From one size of a cluster to the next one."""

    devices: int  # before
    more: int  # after
    times_faster: float
    worth: float  # of what each of the first size's devices does, what each one added does; below 0 where it slows

    @property
    def pays(self) -> bool:
        return self.worth >= LEAST_WORTH


def simulate(
    loads: Sequence[Load],
    nodes: Nodes,
    *,
    start_s: float,
    max_concurrent_trials: int | None = None,
    price: float | None = None,
    outages: Outages | None = None,
) -> Simulated:
    """Train all loads on these nodes.

    `start_s` seconds pass before the first trial and after the last one. `price` is that of a device and hour. Raises
    `FaultsError` where nodes fail too often for the trials to come to an end.
    """
    layout = nodes.layout
    concurrent = layout.concurrent_trials(len(loads), max_concurrent_trials)
    try:
        span = play(
            loads,
            engines=layout.count,
            concurrent=concurrent,
            most_each=layout.most_each(concurrent),
            starts_per_s=STARTS_PER_S,
            engines_per_node=layout.count // nodes.count,
            outages=outages,
        )
    except NeverEndsError as error:
        rule = "--failures-per-hour must leave nodes time to train a trial"
        raise FaultsError("simulation", [f"{rule}, but with {nodes.count:,} nodes {error}"]) from error
    seconds = start_s + span.seconds
    up_s = span.up_s + layout.count * start_s
    return Simulated(
        nodes=nodes.count,
        devices=nodes.devices,
        seconds=seconds,
        utilisation=span.busy_s / up_s,
        cost=cost_of(up_s * nodes.devices / layout.count, 1, price),
        failures=span.failures,
        begun_anew=span.begun_anew,
        packs=span.packs,
        trials_per_pack=span.mean_pack_size,
    )


def steps(simulated: Sequence[Simulated]) -> list[Step]:
    """What each next larger size brings, beside the smallest: sweeps in an hour, for each device that is added."""
    ordered = sorted(simulated, key=lambda each: each.devices)
    found = []
    for before, after in itertools.pairwise(ordered):
        first = ordered[0]
        added = (1 / after.seconds - 1 / before.seconds) / (after.devices - before.devices)
        found.append(
            Step(
                devices=before.devices,
                more=after.devices,
                times_faster=before.seconds / after.seconds,
                worth=added * first.seconds * first.devices,
            )
        )
    return found


def longest_alone(loads: Sequence[Load]) -> float:
    """Seconds of the trial that takes longest with an engine to itself, which no number of devices shortens."""
    return max(
        load.num_steps * (load.fixed_s + load.trial_s) + load.own_s + sum(seconds for _, seconds in load.once)
        for load in loads
    )
