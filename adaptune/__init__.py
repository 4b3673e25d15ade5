"""adaptune: how much accuracy does each trained parameter buy, on your tasks, and which setting should you ship?

    import adaptune
    results = adaptune.run_sweep("quickstart")
    results.recommend().to_pandas()

Names are found in their rooms when they are first used, so importing this costs nothing and loads no torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from importlib.metadata import version as _version

    from orchestrator.analysis.results import Results
    from orchestrator.run.sweep import load_results, run_sweep
    from orchestrator.spec import (
        Asha,
        Choice,
        Grid,
        Hyperband,
        LogUniform,
        Median,
        MethodSpec,
        RandInt,
        SearchSpec,
        SweepSpec,
        SweepSpecError,
        Uniform,
    )
    from trainables import load
    from trainables.faults import FaultsError

    __version__: str = _version("adaptune")

__all__ = [
    "Asha",
    "Choice",
    "FaultsError",
    "Grid",
    "Hyperband",
    "LogUniform",
    "Median",
    "MethodSpec",
    "RandInt",
    "Results",
    "SearchSpec",
    "SweepSpec",
    "SweepSpecError",
    "Uniform",
    "__version__",
    "load",
    "load_results",
    "run_sweep",
]

_ROOMS = {
    "FaultsError": "trainables.faults",
    "Results": "orchestrator.analysis.results",
    "load": "trainables",
    "load_results": "orchestrator.run.sweep",
    "run_sweep": "orchestrator.run.sweep",
}


def __getattr__(name: str) -> Any:
    if name == "__version__":
        return importlib.import_module("importlib.metadata").version("adaptune")
    if name not in __all__:
        raise AttributeError(f"module 'adaptune' has no attribute {name!r}")
    return getattr(importlib.import_module(_ROOMS.get(name, "orchestrator.spec")), name)


def __dir__() -> list[str]:
    return list(__all__)
