"""adaptune: how much accuracy does each trained parameter buy, on your tasks?

from orchestrator import SweepSpec, run_sweep, load_results
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from orchestrator.run.sweep import load_results, run_sweep
    from orchestrator.spec.spec import SweepSpec

__all__ = ["SweepSpec", "load_results", "run_sweep"]

_ROOMS = {
    "SweepSpec": "orchestrator.spec.spec",
    "run_sweep": "orchestrator.run.sweep",
    "load_results": "orchestrator.run.sweep",
}


def __getattr__(name: str) -> Any:
    """Load a façade name when it is first used, so that importing one room does not load the others."""
    if name not in _ROOMS:
        raise AttributeError(f"module 'orchestrator' has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(_ROOMS[name]), name)
