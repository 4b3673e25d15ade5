"""The data plane: tasks, encoders, methods, the training loop and the engine. Runs alone, on torch and transformers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from trainables.inference.saved_adapter import load

__all__ = ["load"]


def __getattr__(name: str) -> Any:
    """`trainables.load`, found when it is first used: most of this package must be importable without torch."""
    if name != "load":
        raise AttributeError(f"module 'trainables' has no attribute {name!r}")
    from trainables.inference.saved_adapter import load

    return load
