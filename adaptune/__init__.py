"""adaptune: how much accuracy does each trained parameter buy, on your tasks, and which setting should you ship?

    import adaptune
    results = adaptune.run_sweep("quickstart")
    results.recommend().to_pandas()

Each name is found where it is defined when it is first used, so importing this costs nothing and loads no torch.
"""

from __future__ import annotations

import difflib
import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from orchestrator.analysis.results import Results
    from orchestrator.analysis.sequences import SequenceResults
    from orchestrator.run.sequence import load_sequence, run_sequence
    from orchestrator.run.sweep import load_results, run_sweep
    from orchestrator.spec import (
        Asha,
        Choice,
        Grid,
        Hyperband,
        LogUniform,
        Median,
        MethodSpec,
        NonInferioritySpec,
        Patience,
        RandInt,
        SearchSpec,
        SweepSpec,
        SweepSpecError,
        Uniform,
    )
    from trainables import AdapterBank, convert, load
    from trainables.faults import FaultsError

    __version__: str

__all__ = [
    "AdapterBank",
    "Asha",
    "Choice",
    "FaultsError",
    "Grid",
    "Hyperband",
    "LogUniform",
    "Median",
    "MethodSpec",
    "NonInferioritySpec",
    "Patience",
    "RandInt",
    "Results",
    "SearchSpec",
    "SequenceResults",
    "SweepSpec",
    "SweepSpecError",
    "Uniform",
    "__version__",
    "convert",
    "load",
    "load_results",
    "load_sequence",
    "run_sequence",
    "run_sweep",
]

# What IPython asks an extension for: `%load_ext adaptune` shows tables in a notebook as tables.
_OF_IPYTHON = ("load_ipython_extension", "unload_ipython_extension")

# Where each name is defined; those of a sweep's spec come from `orchestrator.spec`.
_DEFINED_IN = {
    "AdapterBank": "trainables",
    "FaultsError": "trainables.faults",
    "Results": "orchestrator.analysis.results",
    "SequenceResults": "orchestrator.analysis.sequences",
    "convert": "trainables",
    "load": "trainables",
    "load_results": "orchestrator.run.sweep",
    "load_sequence": "orchestrator.run.sequence",
    "run_sequence": "orchestrator.run.sequence",
    "run_sweep": "orchestrator.run.sweep",
    **dict.fromkeys(_OF_IPYTHON, "orchestrator.analysis.notebook"),
}


def __getattr__(name: str) -> Any:
    if name == "__version__":
        return _version_here()
    if name not in __all__ and name not in _OF_IPYTHON:
        near = difflib.get_close_matches(name, __all__, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else f"; it has {', '.join(__all__)}"
        raise AttributeError(f"module 'adaptune' has no attribute {name!r}{hint}")
    value = getattr(importlib.import_module(_DEFINED_IN.get(name, "orchestrator.spec")), name)
    globals()[name] = value  # found at once from now on
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


def _version_here() -> str:
    """The version that is installed; in a source tree that nobody has installed, the one that its project declares."""
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("adaptune")
    except PackageNotFoundError:
        import tomllib
        from pathlib import Path

        project = Path(__file__).parent.parent / "pyproject.toml"
        try:
            return str(tomllib.loads(project.read_text(encoding="utf-8"))["project"]["version"])
        except (OSError, KeyError, ValueError):
            return "0+unknown"
