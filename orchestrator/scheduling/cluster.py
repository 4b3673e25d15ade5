"""What a running Ray cluster has."""

from __future__ import annotations

import ray

from orchestrator.scheduling.ray_session import connect


def describe_cluster(address: str) -> str:
    """Nodes, cores and GPUs of the Ray at an address. Raises `FaultsError` where it cannot be reached."""
    connect(address)
    try:
        resources = ray.cluster_resources()
        nodes = sum(1 for node in ray.nodes() if node["Alive"])
        return f"{nodes} nodes, {resources.get('CPU', 0):g} cores, {resources.get('GPU', 0):g} GPUs at {address}"
    finally:
        ray.shutdown()
