"""When the nodes of a cluster fail: drawn under a seed, so that a simulation can be repeated."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

# Until a cluster takes a node for gone that says nothing any more.
LOSS_SEEN_S = 30.0


@dataclass(frozen=True, kw_only=True)
class Outages:
    """How often each node of a cluster fails, as when a spot machine is taken away, and how long another takes to come.

    Args:
        per_hour: expected failures of one node in an hour that it is up. They come independently of each other and of
            how long the node has been up: times between them are exponentially distributed.
        replaced_after_s: from a failure until engines load on another node.
        start_s: until these engines stand.
        seed: of the draws. A node fails at the same moments whatever the size of the cluster.
    """

    per_hour: float
    replaced_after_s: float = 300.0
    start_s: float = 0.0
    seed: int = 0

    def of(self, node: int) -> NodeOutages:
        """The failures of one node, the first at the time 0 or later."""
        return NodeOutages(self, np.random.default_rng([self.seed, node]))


class NodeOutages:
    """Draws one node's failures, one after another."""

    def __init__(self, outages: Outages, rng: np.random.Generator) -> None:
        self._outages = outages
        self._rng = rng

    def next_failure(self, up_since: float) -> float:
        """When it fails next; never where it does not fail."""
        per_hour = self._outages.per_hour
        return up_since + float(self._rng.exponential(3600 / per_hour)) if per_hour > 0 else float("inf")
