"""Engines on a Ray of several nodes: those without a GPU beside one with one, and nodes and processes told to go."""

from __future__ import annotations

import logging
import os
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import ray
from ray._private.worker import global_worker
from ray.cluster_utils import Cluster
from ray.core.generated import autoscaler_pb2

from orchestrator.planning.plan import PlannedTrial, plan_sweep
from orchestrator.record import TrialStatus
from orchestrator.scheduling.cluster_state import has_autoscaler, nodes
from orchestrator.scheduling.engine_layout import EngineLayout
from orchestrator.scheduling.engines import engine_pool
from orchestrator.scheduling.loans import Wants
from orchestrator.scheduling.remaining import Remaining
from orchestrator.scheduling.tuner import run_trials
from orchestrator.trial_source import FixedTrials
from tests.compiled import cache_with_kernels
from tests.factories import brief_config, planned_trial
from tests.orchestrator.scheduling.observer import Observer

pytestmark = [pytest.mark.ray, pytest.mark.timeout(300)]
STORE_BYTES = 80 * 2**20
LONG = 60  # epochs of a trial that is met in the middle


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ADAPTUNE_CACHE", str(cache_with_kernels(tmp_path_factory.mktemp("cache"))))
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.setenv("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
        options = {"num_cpus": 2, "object_store_memory": STORE_BYTES, "include_dashboard": False}
        started = Cluster(initialize_head=True, head_node_args=options)
        ray.init(address=started.address, log_to_driver=False, logging_level=logging.ERROR)
        yield started
        ray.shutdown()
        started.shutdown()


@pytest.fixture
def trials(small_backbone: Path, write_task: Callable[..., Path]) -> tuple[PlannedTrial, ...]:
    plan = plan_sweep(
        {
            "name": "small",
            "backbone": str(small_backbone),
            "tasks": [str(write_task())],
            "seeds": [0],
            "space": {"batch_size": 16, "learning_rate": 1e-2},
            "methods": [{"adapter": {"adapter_size": 2, "num_epochs": {"grid": [LONG, LONG + 1, 2, 3]}}}],
        }
    )
    return plan.trials


def until(condition: Callable[[], bool]) -> None:
    ends = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < ends
        time.sleep(0.05)


def test_trials_of_a_process_that_is_told_to_go_and_of_a_node_that_drains_begin_anew_and_are_recorded_once(
    cluster: Cluster, trials: tuple[PlannedTrial, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    second = cluster.add_node(num_cpus=1, object_store_memory=STORE_BYTES)
    until(lambda: len(nodes()) == 2)
    assert not has_autoscaler()
    with engine_pool(EngineLayout(count=3, num_gpus=0, num_threads=1)) as (pool, engines):
        ray.get(pool.ready.remote())
        places = {engine: ray.get(engine.presence.remote()).node for engine in engines}
        here = ray.get_runtime_context().get_node_id()
        monkeypatch.setattr(
            "orchestrator.scheduling.tuner.engine_pool", lambda *arguments, **options: Shared(pool, engines)
        )

        def drain() -> None:
            deadline_ms = int(1000 * (time.time() + 20))
            reason = autoscaler_pb2.DrainNodeReason.Value("DRAIN_NODE_REASON_PREEMPTION")
            global_worker.gcs_client.drain_node(second.node_id, reason, "taken away", deadline_ms)

        def terminate() -> None:
            os.kill(ray.get(next(e for e in engines if places[e] == here).process_id.remote()), signal.SIGTERM)

        observer = Observer({LONG: drain, LONG + 1: terminate})
        assert not run_trials("small", FixedTrials(trials), observer)
        assert second.node_id in {*places.values()}
        records = observer.by_id()
        assert {record.status for record in records.values()} == {TrialStatus.COMPLETED}
        assert records.keys() == {trial.trial_id for trial in trials}
        assert second.node_id not in {node.node_id for node in nodes()}
        assert observer.notices == []  # nothing of it is a fault
    cluster.remove_node(second, allow_graceful=False)


class Shared:
    """A pool that outlives the sweep."""

    def __init__(self, *shared: Any) -> None:
        self._shared = shared

    def __enter__(self) -> Any:
        return self._shared

    def __exit__(self, *exception: object) -> None:
        pass


def test_nodes_without_a_gpu_train_what_needs_none_and_an_engine_there_is_on_the_cpu(cluster: Cluster) -> None:
    until(lambda: len(nodes()) == 1)
    gpu = cluster.add_node(num_cpus=1, num_gpus=1, object_store_memory=STORE_BYTES)  # as far as Ray knows
    until(lambda: len(nodes()) == 2)
    layout = EngineLayout(count=1, num_gpus=1, num_threads=1)
    remaining = Remaining(FixedTrials(()))
    cheap_trial = replace(planned_trial(), config=brief_config("no_bert"))
    remaining.under_way = lambda: [cheap_trial]
    with engine_pool(layout, remaining) as (pool, engines):
        dear = ray.get(pool.acquire.remote("dear", None))
        assert ray.get(dear.presence.remote()).node == gpu.node_id
        waits = pool.acquire.remote("waits", None)
        cheap = ray.get(pool.acquire.remote("cheap", None, Wants(runs_on_cpu=True)))
        presence = ray.get(cheap.presence.remote())
        assert presence.node == ray.get_runtime_context().get_node_id()
        assert presence.status.engine.endswith("/cpu")
        assert len(engines) == 2  # one core of the driver's node is the driver's
        ray.get(pool.release.remote("cheap"))
        assert ray.wait([waits], timeout=1)[0] == []  # not there, though it is idle
        ray.get(pool.release.remote("dear"))
        assert ray.get(waits) == dear
