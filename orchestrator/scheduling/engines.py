"""The engines of a sweep, on GPUs or on groups of CPU cores, and the pool that lends them to its trials."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from orchestrator.scheduling.cluster_state import nodes, total
from orchestrator.scheduling.engine_actor import EngineActor
from orchestrator.scheduling.engine_autoscaler import EngineAutoscaler
from orchestrator.scheduling.engine_layout import EngineLayout, helpers_on, lay_out
from orchestrator.scheduling.pool import EnginePool
from orchestrator.scheduling.remaining import Remaining


@contextmanager
def engine_pool(
    layout: EngineLayout, remaining: Remaining | None = None, *, grows: bool = False, most_each: int | None = None
) -> Iterator[tuple[Any, list[Any]]]:
    """A pool and its engines, as Ray actors that end with the context. Returns before they have loaded.

    Engines are added to the list, and taken out of it, while the context lasts: as nodes join the cluster, and as what
    is `remaining` of the plan lets one that `grows` by itself grow and shrink. `most_each`: of trials that an engine on
    CPUs is lent at a time; None: as many as its packs hold.
    """
    engines = _make(layout, layout.count)
    home = ray.get_runtime_context().get_node_id()
    pool: Any = (
        ray.remote(EnginePool)
        .options(
            num_cpus=0,
            max_concurrency=10_000,
            # With the driver, whose end is the sweep's; an answer that its own end keeps back comes from its next life.
            scheduling_strategy=NodeAffinitySchedulingStrategy(home, soft=True),
            max_restarts=-1,
            max_task_retries=-1,
        )
        .remote(most_each=most_each)
    )
    pool.keep.remote(engines)  # not as it is made: Ray may have lost what it was made with when it starts it again

    def room() -> EngineLayout:
        sharing = layout.engines_per_gpu
        return lay_out(total(nodes()), threads_per_engine=layout.num_threads, engines_per_gpu=sharing)

    def helpers() -> Mapping[str, int]:
        if remaining is None or not remaining.has_some_for_cpus():
            return {}
        return helpers_on({node.node_id: (node.cpus, node.gpus) for node in nodes()}, home)

    follow = EngineAutoscaler(
        pool,
        engines,
        layout,
        room,
        _make,
        left=remaining.by_key if grows and remaining is not None else lambda: None,
        wants_gpus=remaining.has_some_for_gpus if remaining is not None else lambda: False,
        helpers=helpers,
        home=home,
        engines_per_gpu=layout.engines_per_gpu,
    )
    try:
        with follow:
            yield pool, engines
    finally:
        actors: list[Any] = [pool, *engines]
        for actor in actors:
            ray.kill(actor)  # in a Ray of the caller's own they would go on and keep their cores


def _make(layout: EngineLayout, count: int, node: str | None = None) -> list[Any]:
    """So many engines. Those of a node may be nowhere else, and train on its CPUs, whatever else it has."""
    from trainables.engine.pack_size import (
        MAX_TRIALS,  # here: it comes with torch, which the pool's own process does without
    )

    engine = ray.remote(EngineActor).options(
        # A little less than its cores, so that the trials' light actors find room beside it.
        num_cpus=0 if layout.num_gpus else layout.num_threads * 0.9,
        num_gpus=layout.num_gpus,
        scheduling_strategy=NodeAffinitySchedulingStrategy(node, soft=False) if node else None,
        max_restarts=-1,
        # Of each trial a `next` waits for news and perhaps a `stop` for its end; the rest are answered meanwhile.
        max_concurrency=2 * MAX_TRIALS + 8,
    )
    # Without a GPU of its own an engine takes none, though its process may see those of its machine.
    device = "cpu" if node or not layout.num_gpus else None
    arguments = (layout.num_threads, 1 / layout.engines_per_gpu, device, True)
    return [engine.remote(*arguments) for _ in range(count)]
