"""Faults in what a user gave: gathered, never raised one by one.

A check returns a list of sentences, each stating the rule, what came and, where names are involved, the valid
names. Whoever gathers them raises one error that holds them all.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Sequence

_END = 1000  # characters that are shown at either end of a fault that is longer than three times as many
_WORD = re.compile(r"\S{750,}")


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
    """A fault without the middle of what came, where somebody gave what fills a terminal.

    First of words, such as paths, then of all of it: a rule stands at its beginning and a remedy at its end.
    """
    return _ends(_WORD.sub(lambda word: _ends(word[0], _END // 4), fault), _END)


def _ends(text: str, length: int) -> str:
    left_out = len(text) - 2 * length
    return f"{text[:length]} ... ({left_out:,} characters) ... {text[-length:]}" if left_out > length else text


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
