"""Tasks by reference: what to learn, from which rows, measured how. Needs no torch.

A reference is `<family>/<name>`, a family being a file of this folder (`toy/sentiment`, `glue/cola`,
`hub/<dataset id>@<commit>?text_a=...`); anything else is the path of a task folder, or a URI of one
(`s3://bucket/folder`). `./toy/sentiment` and absolute paths are folders whatever they are called.

A family is a module with three functions: `names()`, the tasks it knows by name (empty where any name may do);
`describe(name) -> TaskInfo`, from memory where it can; `load(name) -> Task`. Both raise `FaultsError`.
"""

from __future__ import annotations

import difflib
import os
import sys
from types import ModuleType

from trainables import discovery
from trainables.config import TrialConfig
from trainables.data import remote
from trainables.data.folding import fold_of
from trainables.data.paths import existing_path
from trainables.faults import FaultsError, unknown_name
from trainables.task import SPLITS, Task, TaskInfo

__all__ = ["SPLITS", "Task", "TaskInfo", "describe", "families", "known_names", "load", "load_trial"]


def describe(reference: str) -> TaskInfo:
    """The facts of a task; cheap, and without its data where the family knows its tasks by name.

    Raises `FaultsError` where there is no such task, or what describes it is faulty.
    """
    family, name = _resolve(reference)
    return family.describe(name)


def load(reference: str) -> Task:
    """Read a task and check its every row. Raises `FaultsError` with all faults at once."""
    family, name = _resolve(reference)
    return family.load(name)


def load_trial(config: TrialConfig) -> Task:
    """The task as a trial sees it: its own fold of it, where it has one. Raises `FaultsError` as `load` does."""
    task = load(config.task)
    if config.folds is None or config.fold is None:
        return task
    return fold_of(task, config.folds, config.fold)


def families() -> list[str]:
    """The task families: the files of this folder."""
    return discovery.plugin_names(sys.modules[__name__])


def known_names() -> list[str]:
    """References of every task known by name, over all families."""
    return [f"{family}/{name}" for family in families() for name in _family(family).names()]


def _family(name: str) -> ModuleType:
    return discovery.load_plugin(sys.modules[__name__], "task family", name)


def _resolve(reference: str) -> tuple[ModuleType, str]:
    prefix, slash, rest = reference.partition("/")
    if slash and prefix in families():
        family = _family(prefix)
        if family.names() and rest not in family.names():
            raise FaultsError(f"task {reference}", [unknown_name(f"task of family {prefix}", rest, family.names())])
        return family, rest
    if remote.is_remote(reference):
        return _family("folder"), reference
    folder = existing_path(reference)
    if folder is not None and folder.is_file():
        rule = "must be a folder; one that holds this file alone is cut into train, validation and test"
        raise FaultsError(f"task {reference}", [f"{rule}, but {reference} is a file"])
    if folder is None or not folder.is_dir():
        near = difflib.get_close_matches(reference, known_names(), n=1)
        hint = f"; did you mean {near[0]!r}?" if near else "."
        known = ", ".join(_examples(name) for name in families() if name != "folder")
        place = os.path.abspath(os.path.expanduser(reference))
        raise FaultsError(f"task {reference}", [f"no such folder: {place}{hint} Known by name: {known}"])
    return _family("folder"), reference


def _examples(family: str, count: int = 2) -> str:
    """A family in a few words: `toy/sentiment, toy/topic (3 more)`."""
    names = _family(family).names()
    if not names:
        return f"{family}/<name>"
    shown = ", ".join(f"{family}/{name}" for name in names[:count])
    return f"{shown} ({len(names) - count} more)" if len(names) > count else shown
