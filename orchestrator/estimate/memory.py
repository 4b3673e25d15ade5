"""Memory of a device at its fullest."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from trainables.estimate.throughput import Throughput

if TYPE_CHECKING:
    from trainables.estimate.trial_cost import TrialCost


def memory_at_most(
    costs: Sequence[TrialCost], limits: Sequence[int], concurrent: int, devices: int, throughputs: Sequence[Throughput]
) -> tuple[int, bool]:
    """Bytes of a device at its fullest, as measured where every kind was, and whether they were."""
    measured = {
        throughput.kind: throughput.memory_bytes for throughput in throughputs if throughput.memory_bytes is not None
    }
    kinds = {each.kind for each in costs}
    if kinds and kinds <= measured.keys():
        return max(measured[kind] for kind in kinds), True
    together = max(1, -(-concurrent // devices))
    computed = max(each.pack_bytes(min(limit, together)) for each, limit in zip(costs, limits, strict=True))
    return max([computed, *(peak for kind, peak in measured.items() if kind in kinds and peak)]), False
