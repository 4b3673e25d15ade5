"""How many engines a cluster or a machine gets, and what each is given. Needs no Ray."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass

from trainables.faults import FaultsError

# Light trials an engine keeps at hand, so that its packs fill up as soon as there is room. Each is a process of a
# hundred megabytes that takes a core a second to start, which packs on a CPU earn back only up to some number. A pack
# of 32 on a GPU trains up to a quarter more examples a second than one of 16, so that a few GPUs have that many.
TRIALS_PER_GPU, TRIALS_PER_CPU_ENGINE, MOST_ON_CPUS = 16, 4, 64
TRIALS_PER_FIRST_GPU, MOST_ON_FIRST_GPUS = 32, 64
ENGINES_PER_GPU = "ADAPTUNE_ENGINES_PER_GPU"
# Each holds a backbone and a CUDA context of half a gigabyte; beyond so many a card only switches between them.
MOST_ENGINES_PER_GPU = 16


@dataclass(frozen=True, kw_only=True)
class EngineLayout:
    """How many engines, and what each is given of its node."""

    count: int  # 0 where a cluster has nothing to train on yet
    num_gpus: float  # a whole GPU, a part of one, or none
    num_threads: int  # CPU threads of one engine's products

    @property
    def engines_per_gpu(self) -> int:
        """How many engines share a GPU; 1 without any."""
        return round(1 / self.num_gpus) if self.num_gpus else 1

    def concurrent_trials(self, planned: int, asked: int | None = None) -> int:
        """How many trials to have under way: enough to fill packs, and no more than there are; or as asked."""
        filling = filling_trials(self.count, 0) if self.num_gpus else filling_trials(0, self.count)
        return max(1, min(planned, asked or filling))

    def most_each(self, concurrent: int) -> int | None:
        """How many of the trials under way an engine is lent at most; None: as many as its packs hold.

        On CPUs no more than its part. A larger pack gains little there, and at the end of a sweep, or where trials of
        several kinds are under way, one engine would have them all while another has nothing to do.
        """
        return None if self.num_gpus or not self.count else -(-concurrent // self.count)


def filling_trials(gpu_engines: int, cpu_engines: int) -> int:
    """How many trials fill the packs of so many engines on GPUs and on CPUs."""
    on_gpus = max(gpu_engines * TRIALS_PER_GPU, min(gpu_engines * TRIALS_PER_FIRST_GPU, MOST_ON_FIRST_GPUS))
    return on_gpus + max(cpu_engines, min(cpu_engines * TRIALS_PER_CPU_ENGINE, MOST_ON_CPUS))


def devices_paid(gpu_engines: int, cpu_engines: int, *, engines_per_gpu: int = 1) -> float:
    """How many devices engines are paid for: GPUs where there are any, else one a CPU engine.

    Cores beside GPUs are not counted: they come with the GPUs' machines or are the driver's own.
    """
    return gpu_engines / engines_per_gpu if gpu_engines else cpu_engines


def lay_out(
    resources: dict[str, float], *, threads_per_engine: int | None = None, engines_per_gpu: int = 1
) -> EngineLayout:
    """Engines for what a cluster has: so many a GPU where there is any, else one a group of CPU cores.

    None where there are neither, as on a cluster whose head shall train nothing and whose other nodes are yet to come.

    `resources` are totals by Ray's names, the CPUs those of nodes with GPUs where there are any. One thread an engine
    is the default on CPUs: two engines of one thread train more than one engine of two, and threads that wait for each
    other collapse when another process wants their core.
    """
    gpus, cpus = int(resources.get("GPU", 0)), int(resources.get("CPU", 1))
    if gpus:
        count = gpus * engines_per_gpu
        threads = threads_per_engine or max(1, cpus // count)
        return EngineLayout(count=count, num_gpus=1 / engines_per_gpu, num_threads=threads)
    threads = max(1, min(threads_per_engine or 1, cpus))
    return EngineLayout(count=cpus // threads, num_gpus=0, num_threads=threads)


def engines_per_gpu() -> int:
    """What the environment asks for, 1 where it does not say. Raises `FaultsError` where that is no such number."""
    asked = os.environ.get(ENGINES_PER_GPU, "1")
    if not asked.isdecimal() or not 1 <= int(asked) <= MOST_ENGINES_PER_GPU:
        rule = f"{ENGINES_PER_GPU} must be a whole number from 1 to {MOST_ENGINES_PER_GPU}, but it is {asked!r}"
        raise FaultsError("environment", [f"{rule}; unset it for one engine a GPU"])
    return int(asked)


def helpers_on(offered: Mapping[str, tuple[float, float]], home: str) -> dict[str, int]:
    """How many engines without a GPU to have on each node, beside those of a cluster that has GPUs.

    One a core of each node without a GPU, but for one core of the driver's node (`home`), which the driver needs; none
    on nodes with GPUs, whose cores feed these. `offered` maps a node to its CPUs and GPUs.
    """
    if not any(gpus for _, gpus in offered.values()):
        return {}
    free = {node: int(cpus) - (node == home) for node, (cpus, gpus) in offered.items() if not gpus}
    return {node: count for node, count in free.items() if count > 0}
