"""The engines of a sweep, one a GPU or one a group of CPU cores, and the pool that lends them to its trials."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from orchestrator.scheduling.engine_actor import EngineActor
from orchestrator.scheduling.engine_autoscaler import Keeper
from orchestrator.scheduling.pool import EnginePool

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


@contextmanager
def engine_pool(layout: EngineLayout) -> Iterator[tuple[Any, list[Any]]]:
    """A pool and its engines, as Ray actors that end with the context. Returns before they have loaded.

    Engines are added to the list while the context lasts, as nodes join the cluster.
    """
    engines = _make(layout, layout.count)
    pool: Any = (
        ray.remote(EnginePool)
        .options(
            num_cpus=0,
            max_concurrency=10_000,
            # With the driver, whose end is the sweep's; an answer that its own end keeps back comes from its next life.
            scheduling_strategy=NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=True),
            max_restarts=-1,
            max_task_retries=-1,
        )
        .remote()
    )
    pool.keep.remote(engines)  # not as it is made: Ray may have lost what it was made with when it starts it again

    def room() -> EngineLayout:
        return lay_out(ray.cluster_resources(), threads_per_engine=layout.num_threads)

    try:
        with Keeper(pool, engines, layout, room, _make):
            yield pool, engines
    finally:
        actors: list[Any] = [pool, *engines]
        for actor in actors:
            ray.kill(actor)  # in a Ray of the caller's own they would go on and keep their cores


def _make(layout: EngineLayout, count: int) -> list[Any]:
    from trainables.engine.pack_size import (
        MAX_TRIALS,  # here: it comes with torch, which the pool's own process does without
    )

    engine = ray.remote(EngineActor).options(
        # A little less than its cores, so that the trials' light actors find room beside it.
        num_cpus=0 if layout.num_gpus else layout.num_threads * 0.9,
        num_gpus=layout.num_gpus,
        max_restarts=-1,
        # Of each trial a `next` waits for news and perhaps a `stop` for its end; the rest are answered meanwhile.
        max_concurrency=2 * MAX_TRIALS + 8,
    )
    return [engine.remote(layout.num_threads) for _ in range(count)]
