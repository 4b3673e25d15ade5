"""Ray nodes on one machine: several raylets, each with its own cores, that can be killed and can join."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterator
from typing import Any

import psutil
from ray.cluster_utils import Cluster

from orchestrator.scheduling.closed_ray import started_patiently

# A node that is gone is known to be after some three seconds instead of half a minute.
_HEALTH = {
    "health_check_initial_delay_ms": 1000,
    "health_check_period_ms": 500,
    "health_check_timeout_ms": 10_000,
    "health_check_failure_threshold": 6,
}
_STORE_BYTES = 80 * 2**20  # the least that Ray takes is 75 MiB

# What the processes of the actors are called.
TRIAL, ENGINE, POOL = "ray::ResourceTrainable", "ray::EngineActor", "ray::EnginePool"


class Nodes:
    """A head with one core, where the driver is, and workers with one core each."""

    def __init__(self, workers: int = 1) -> None:
        with started_patiently():
            self._cluster = Cluster(
                initialize_head=True,
                head_node_args={
                    "num_cpus": 1,
                    "object_store_memory": _STORE_BYTES,
                    "include_dashboard": False,
                    "_system_config": _HEALTH,
                },
            )
        self._workers: list[Any] = []
        for _ in range(workers):
            self.join()

    @property
    def address(self) -> str:
        return str(self._cluster.address)

    def __len__(self) -> int:
        return 1 + len(self._workers)

    def join(self) -> None:
        """Have a node join the cluster."""
        with started_patiently():
            self._workers.append(self._cluster.add_node(num_cpus=1, object_store_memory=_STORE_BYTES))

    def kill_worker(self) -> bool:
        """Kill a node with all that runs on it, as when a machine is taken away; False where only the head is left."""
        if not self._workers:
            return False
        self._cluster.remove_node(self._workers.pop(0), allow_graceful=False)
        return True

    def processes(self, title: str) -> list[psutil.Process]:
        """The living processes of actors of this cluster."""
        found = []
        for raylet in self._raylets():
            with contextlib.suppress(psutil.Error):
                found += [child for child in raylet.children(recursive=True) if _is_called(child, title)]
        return found

    def kill(self, process: psutil.Process) -> None:
        with contextlib.suppress(psutil.NoSuchProcess):
            os.kill(process.pid, signal.SIGKILL)

    def close(self) -> None:
        self._cluster.shutdown()

    def _raylets(self) -> Iterator[psutil.Process]:
        for node in self._cluster.list_all_nodes():
            for processes in node.all_processes.values():
                for info in processes:
                    with contextlib.suppress(psutil.NoSuchProcess):
                        yield psutil.Process(info.process.pid)


def _is_called(process: psutil.Process, title: str) -> bool:
    with contextlib.suppress(psutil.Error):
        return " ".join(process.cmdline()).startswith(title) and process.status() != psutil.STATUS_ZOMBIE
    return False
