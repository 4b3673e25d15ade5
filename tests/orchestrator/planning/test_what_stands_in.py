"""What stands in for a faulty part of a sweep, so that the rest can be checked, has no faults of its own to tell."""

from __future__ import annotations

from typing import Any

import pytest

from orchestrator.planning.plan import plan_sweep
from orchestrator.spec.spec import SweepSpecError

RANGES = {
    "methods": [{"adapter": {"adapter_size": {"randint": [1, 4]}, "learning_rate": {"loguniform": [1e-4, 1e-2]}}}]
}
CLAIM = {"non_inferiority": {"reference": "layernorm", "margin": 0.01}}


def faults_of(values: dict[str, Any]) -> tuple[str, ...]:
    with pytest.raises(SweepSpecError) as refusal:
        plan_sweep(values)
    return refusal.value.faults


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({**RANGES, "search": "tpe"}, "search: must be a mapping, but got 'tpe'; write {algorithm: tpe}"),
        ({**RANGES, "search": {"algorithm": ["tpe"], "num_samples": 3}}, "search.algorithm: must be text"),
        ({**RANGES, "search": {"algorthm": "tpe", "num_samples": 3}}, "search.algorthm: unknown key"),
        ({**RANGES, "search": {"algorithm": "tpe", "num_samples": 0}}, "search.num_samples: must be >= 1, but got 0"),
        ({"backbone": 7, "methods": [{"adapter": {"adapter_size": 500}}]}, "backbone: must be text, but got 7"),
        ({"backbone": 7, "space": {"max_length": 900}}, "backbone: must be text, but got 7"),
        ({"methods": []}, "methods: must hold at least 1"),
        ({"methods": 7, **CLAIM}, "methods: must be a list, but got 7"),
    ],
)
def test_a_fault_brings_none_that_nobody_made(values: dict[str, Any], changes: dict[str, Any], fault: str) -> None:
    (told,) = faults_of({**values, **changes})
    assert told.startswith(fault)


def test_what_was_asked_for_is_still_judged_beside_a_fault_of_the_search(values: dict[str, Any]) -> None:
    told = "\n".join(faults_of({**values, **RANGES, "search": {"algorithm": "grid", "seed": "x"}}))
    assert "search.seed: must be a whole number" in told
    assert "adapter.adapter_size: grid search needs a grid" in told
    told = "\n".join(faults_of({**values, "search": {"algorithm": "gird", "num_samples": 0}}))
    assert "search.num_samples: must be >= 1" in told
    assert "unknown search algorithm 'gird'" in told
