"""Which engine a trial gets of those that could take it: the rule of the pool and of simulations. Needs no Ray."""

from __future__ import annotations

from collections.abc import Iterable, Sized
from typing import Protocol, TypeVar


class Lendable(Protocol):
    """An engine as the rule sees it."""

    @property
    def trials(self) -> Sized:
        """Those that it has."""

    def takes(self, key: str | None, /) -> bool:
        """Whether a trial with this pack key can begin there: alone, or in the pack that trains."""


E = TypeVar("E", bound=Lendable)


def choose(engines: Iterable[E], key: str | None) -> E | None:
    """The engine with the fewest trials of those that take this one, the first of them; None where it has to wait."""
    able = [engine for engine in engines if engine.takes(key)]
    return min(able, key=lambda engine: len(engine.trials)) if able else None
