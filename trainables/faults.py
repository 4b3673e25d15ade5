"""Faults in what a user gave: gathered, never raised one by one.

A check returns a list of sentences, each stating the rule, what came and, where names are involved, the valid
names. Whoever gathers them raises one error that holds them all.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence

_END = 1000  # characters that are shown at either end of a fault that is longer than three times as many


class FaultsError(ValueError):
    """What the user gave is wrong; `faults` holds every reason, one sentence each."""

    def __init__(self, subject: str, faults: Sequence[str]) -> None:
        self.subject = subject
        self.faults = tuple(faults)
        super().__init__(subject, self.faults)

    def __str__(self) -> str:
        count = f"{len(self.faults)} fault{'s' if len(self.faults) != 1 else ''}"
        return "\n".join([f"{_cut(self.subject)}: {count}", *(f"  - {_cut(fault)}" for fault in self.faults)])


def _cut(fault: str) -> str:
    """A fault without the middle of what came, where somebody gave what fills a terminal: the remedy is at the end."""
    left_out = len(fault) - 2 * _END
    return f"{fault[:_END]} ... ({left_out:,} characters) ... {fault[-_END:]}" if left_out > _END else fault


def unknown_name(kind: str, name: object, known: Iterable[str]) -> str:
    """The fault of a name that is not among the known ones, with the nearest one as a suggestion.

    `kind` says what was named, such as "method" or "option of method adapter".
    """
    names = sorted(known)
    near = difflib.get_close_matches(str(name), names, n=1)
    hint = f"; did you mean {near[0]!r}?" if near else "."
    return f"unknown {kind} {name!r}{hint} Known: {', '.join(names) or 'none'}"


class UnavailableError(FaultsError):
    """A task or backbone is known by its name, but cannot be had from this machine. Planning can go on without it."""
