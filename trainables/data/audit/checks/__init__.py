"""What is looked for in a task, a check a function: to add one, write it into a file of this folder.

A check takes a `View` and yields a sentence for each oddity: what was found, how much of it, and what to do. Its name,
with hyphens, is the one by which a user silences it, so it stays; its docstring's first line says what it looks for.
Functions whose name begins with an underscore are no checks.
"""

from __future__ import annotations

import functools
import importlib
import inspect
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping

from trainables import discovery
from trainables.data.audit.view import View
from trainables.faults import unknown_name

Check = Callable[[View], Iterator[str]]

# Warnings of what settings make of data. A plan knows them; they are silenced as the others are.
ROWS_NEVER_TRAINED = "rows-never-trained"


@functools.cache
def checks() -> Mapping[str, Check]:
    """Every check by the name of its warnings, in the order in which they are shown."""
    found: dict[str, Check] = {}
    for file in discovery.plugin_names(sys.modules[__name__]):
        module = importlib.import_module(f"{__name__}.{file}")
        for name, function in vars(module).items():
            if inspect.isfunction(function) and function.__module__ == module.__name__ and not name.startswith("_"):
                found[name.replace("_", "-")] = function
    return found


def silence_faults(names: Iterable[str]) -> list[str]:
    """The faults of names of warnings that are to be silenced: those that no warning has."""
    known = (*checks(), ROWS_NEVER_TRAINED)
    return [unknown_name("warning", name, known) for name in names if name not in known]
