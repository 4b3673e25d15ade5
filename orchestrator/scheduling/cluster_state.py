"""What Ray says of the nodes of a cluster: what they have, which are about to go, and whether more can come."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import ray
from ray._private import ray_constants
from ray._private.state import state
from ray.experimental.internal_kv import _internal_kv_get

logger = logging.getLogger(__name__)

# The kind of a node, as Ray calls it where nothing can start or end nodes.
_BY_HAND = "node_"
_HEAD = "node:__internal_head__"


@dataclass(frozen=True, kw_only=True)
class Node:
    """One machine of a cluster, and what it offers."""

    node_id: str
    cpus: float = 0
    gpus: float = 0
    is_head: bool = False
    address: str = ""


def nodes() -> list[Node]:
    """The nodes that are up and about to stay."""
    going = state.get_draining_nodes()
    return [
        Node(
            node_id=found["NodeID"],
            cpus=found["Resources"].get("CPU", 0),
            gpus=found["Resources"].get("GPU", 0),
            is_head=_HEAD in found["Resources"],
            address=found["NodeManagerAddress"],
        )
        for found in ray.nodes()
        if found["Alive"] and found["NodeID"] not in going
    ]


def home_resource() -> str:
    """What only the driver's node offers, by Ray's name for it."""
    here = ray.get_runtime_context().get_node_id()
    node = next(node for node in nodes() if node.node_id == here)
    return _HEAD if node.is_head else f"node:{node.address}"


def total(of: Iterable[Node]) -> dict[str, float]:
    """What nodes offer engines together, by Ray's names: those with GPUs where there are any, else all of them."""
    offered = list(of)
    offered = [node for node in offered if node.gpus] or offered
    return {"CPU": sum(node.cpus for node in offered), "GPU": sum(node.gpus for node in offered)}


def draining_nodes() -> Mapping[str, float]:
    """The nodes that have been given notice, and when they go: seconds since the epoch, 0 where nobody said.

    A node has it from its own SIGTERM (`ray start --block`, which is process 1 of most containers), from an autoscaler
    or from `ray drain-node`.
    """
    return {node: deadline_ms / 1000 for node, deadline_ms in state.get_draining_nodes().items()}


def has_autoscaler() -> bool:
    """Whether the cluster can start nodes that are asked for.

    Where Ray does not answer, it is taken not to. Ray has no call that says so. Its monitor runs everywhere; where it
    can start and end nodes it knows their types by the names that the cluster's file gives them, and elsewhere it
    makes up one for each node.
    """
    from ray.autoscaler.v2.sdk import get_cluster_status  # here: the pool's process does without
    from ray.autoscaler.v2.utils import is_autoscaler_v2

    try:
        if is_autoscaler_v2():
            status = get_cluster_status(ray.get_runtime_context().gcs_address)
            types = [node.ray_node_type_name for node in (*status.active_nodes, *status.idle_nodes)]
        else:
            report = json.loads(_internal_kv_get(ray_constants.DEBUG_AUTOSCALING_STATUS) or b"{}")
            types = list(((report.get("autoscaler_report") or {}).get("node_type_mapping") or {}).values())
    except Exception:  # whatever it raises, the sweep goes on with what is there
        logger.debug("the autoscaler could not be asked", exc_info=True)
        return False
    return any(name and not name.startswith(_BY_HAND) for name in types)
