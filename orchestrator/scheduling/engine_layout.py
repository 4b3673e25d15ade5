"""How many engines a cluster or a machine gets, and what each is given. Needs no Ray."""

from __future__ import annotations

from dataclasses import dataclass

# Light trials an engine keeps at hand, so that its packs fill up as soon as there is room. Each is a process of a
# hundred megabytes that takes a core a second to start, which packs on a CPU earn back only up to some number.
TRIALS_PER_GPU, TRIALS_PER_CPU_ENGINE, MOST_ON_CPUS = 16, 4, 64


@dataclass(frozen=True, kw_only=True)
class EngineLayout:
    """How many engines, and what each is given of its node."""

    count: int
    num_gpus: int  # a whole GPU, or none
    num_threads: int  # CPU threads of one engine's products

    def concurrent_trials(self, planned: int, asked: int | None = None) -> int:
        """How many trials to have under way: enough to fill packs, and no more than there are; or as asked."""
        if self.num_gpus:
            filling = self.count * TRIALS_PER_GPU
        else:
            filling = max(self.count, min(self.count * TRIALS_PER_CPU_ENGINE, MOST_ON_CPUS))
        return max(1, min(planned, asked or filling))


def lay_out(resources: dict[str, float], *, threads_per_engine: int | None = None) -> EngineLayout:
    """Engines for what a cluster has: one a GPU where there is any, else one a group of CPU cores.

    `resources` are Ray's totals. One thread an engine is the default on CPUs: two engines of one thread train more
    than one engine of two, and threads that wait for each other collapse when another process wants their core.
    """
    gpus, cpus = int(resources.get("GPU", 0)), max(1, int(resources.get("CPU", 1)))
    if gpus:
        return EngineLayout(count=gpus, num_gpus=1, num_threads=threads_per_engine or max(1, cpus // gpus))
    threads = min(threads_per_engine or 1, cpus)
    return EngineLayout(count=max(1, cpus // threads), num_gpus=0, num_threads=threads)
