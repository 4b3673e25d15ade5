"""The data plane: tasks, encoders, methods, the training loop and the engine. Runs alone, on torch and transformers."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from trainables.inference.bank import AdapterBank
    from trainables.inference.formats import convert
    from trainables.inference.saved_adapter import load

__all__ = ["AdapterBank", "convert", "load"]
_DEFINED_IN = {
    "AdapterBank": "trainables.inference.bank",
    "convert": "trainables.inference.formats",
    "load": "trainables.inference.saved_adapter",
}


def __getattr__(name: str) -> Any:
    """Found when it is first used: most of this package must be importable without torch."""
    if name not in _DEFINED_IN:
        raise AttributeError(f"module 'trainables' has no attribute {name!r}")
    return getattr(importlib.import_module(_DEFINED_IN[name]), name)
