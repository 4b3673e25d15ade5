"""The engine: trains trials in packs on one device. `from trainables.engine import Engine`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from trainables.engine.engine import Engine

__all__ = ["Engine"]


def __getattr__(name: str) -> Any:
    """`Engine`, found when it is first used: rooms beside it are asked by commands that load no torch."""
    if name != "Engine":
        raise AttributeError(f"module 'trainables.engine' has no attribute {name!r}")
    from trainables.engine.engine import Engine

    return Engine
