"""What a running Ray cluster has."""

from __future__ import annotations

import logging

import ray


def describe_cluster(address: str) -> str:
    """Nodes, cores and GPUs of the Ray at an address. Raises `ConnectionError` where it cannot be reached."""
    ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
    try:
        resources = ray.cluster_resources()
        nodes = sum(1 for node in ray.nodes() if node["Alive"])
        return f"{nodes} nodes, {resources.get('CPU', 0):g} cores, {resources.get('GPU', 0):g} GPUs at {address}"
    finally:
        ray.shutdown()
