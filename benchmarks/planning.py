"""What it costs to plan ten thousand trials: enumerated, checked, counted and identified, before anything trains."""

from __future__ import annotations

import time

from orchestrator.planning.plan import plan_sweep
from orchestrator.spec.space import Grid
from orchestrator.spec.spec import MethodSpec, SweepSpec

SWEEP = SweepSpec(
    name="planning",
    backbone="minilm",
    tasks=("toy/acceptability", "toy/sentiment"),
    seeds=tuple(range(10)),
    space={"learning_rate": Grid([1e-4 * factor for factor in range(1, 11)])},
    methods=(MethodSpec(method="adapter", space={"adapter_size": Grid(list(range(1, 51)))}),),
)


def measure() -> dict[str, float]:
    """Seconds of a second plan in one process; the first loads what planning imports and fingerprints the data."""
    plan_sweep(SWEEP)
    began = time.perf_counter()
    plan = plan_sweep(SWEEP)
    seconds = time.perf_counter() - began
    return {"trials": len(plan.trials), "plan_s": seconds, "plan_ms_per_trial": 1000 * seconds / len(plan.trials)}
