"""How many engines a plan can still use: what to ask a growing cluster for, and what to give back. Needs no Ray."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from orchestrator.scheduling.engine_layout import TRIALS_PER_CPU_ENGINE, TRIALS_PER_GPU, EngineLayout

# At most so many engines are asked for at once, or as many as there are: a cluster doubles, as autoscalers do.
STEP = 5
# An engine that nothing came for in so long is given back where the plan has no more use for it.
GIVE_BACK_S = 30.0


@dataclass(frozen=True, kw_only=True)
class Idle:
    """An engine that has nothing to do, or is away."""

    place: int  # among all engines
    idle_s: float
    node: str | None  # where it is; None where that is not known


def engines_wanted(left: Mapping[str | None, int], layout: EngineLayout) -> int:
    """How many engines are worth their node for what a plan has left: trials by pack key, those in training included.

    One for each trial that trains alone (key None), and of each key one for as many trials as fill packs.
    """
    filling = TRIALS_PER_GPU // layout.engines_per_gpu if layout.num_gpus else TRIALS_PER_CPU_ENGINE
    together = sum(math.ceil(count / max(1, filling)) for key, count in left.items() if key is not None)
    return left.get(None, 0) + together


def engines_to_ask_for(*, wanted: int, room: int, there: int, asked: int) -> int:
    """How many more engines to ask for beyond the room that a cluster has; below 0, how many fewer.

    Args:
        wanted: those that the plan can use.
        room: those that the cluster has room for.
        there: those that are made, or about to be where there is room.
        asked: those that have been asked for and are not there.
    """
    return min(wanted - there, max(STEP, room)) - asked


def to_give_back(idle: Sequence[Idle], *, wanted: int, there: int, home: str) -> list[int]:
    """The places of idle engines to end, so that their nodes can go: those beyond what the plan can still use.

    Whole nodes first. None of the driver's own node (`home`), which stays as long as the sweep does.
    """
    busy = there - len(idle)
    candidates = [engine for engine in idle if engine.node != home and engine.idle_s >= GIVE_BACK_S]
    surplus = min(len(candidates), len(idle) - max(0, wanted - busy))
    if surplus <= 0:
        return []
    on_node: dict[str | None, int] = {}
    for engine in candidates:
        on_node[engine.node] = on_node.get(engine.node, 0) + 1
    # Engines of one node one after another, the node that is given up soonest first.
    first = sorted(candidates, key=lambda engine: (on_node[engine.node], engine.node or "", engine.place))
    return sorted(engine.place for engine in first[:surplus])
