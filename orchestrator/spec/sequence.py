"""SequenceSpec: tasks that are trained one after another. Declared like a sweep in which nothing is searched."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from orchestrator.spec.spec import SweepSpec, parse_leniently, plain_copy, unknown_key
from trainables.discovery import plugins_declaring
from trainables.faults import unknown_name

_OF_A_SWEEP = ("name", "backbone", "tasks", "seeds", "space", "methods")
_OWN = ("sequential", "max_train_rows", "max_evaluation_rows", "shuffle")


@dataclass(frozen=True, kw_only=True)
class SequenceSpec:
    """A declared sequence of tasks.

    Args:
        sweep: its name, backbone, tasks in their order, seeds, methods and the values of their hyperparameters.
        sequential: the methods that are one model, trained on task after task with a head for each. Every other method
            trains weights of its own for each task, beside the same frozen backbone.
        max_train_rows, max_evaluation_rows: rows of train, and of each other split, that are used of each task, drawn
            by a fixed seed; None uses all.
        shuffle: whether every seed has the tasks in an order of its own, drawn by that seed.
    """

    sweep: SweepSpec
    sequential: tuple[str, ...]
    max_train_rows: int | None = None
    max_evaluation_rows: int | None = None
    shuffle: bool = False

    @property
    def name(self) -> str:
        return self.sweep.name

    @property
    def methods(self) -> tuple[str, ...]:
        """The methods, in the order they are declared."""
        return tuple(entry.method for entry in self.sweep.methods)

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON values in the shape of the file, with defaults filled in."""
        plain = json.loads(self.sweep.to_json())
        own = {name: getattr(self, name) for name in _OWN}
        return {name: plain[name] for name in _OF_A_SWEEP} | own | {"sequential": list(self.sequential)}


def parse_sequence(values: Any) -> tuple[SequenceSpec, list[str]]:
    """Read what is sound of a sequence, with the faults of its shape; as `parse_leniently` reads a sweep."""
    if not isinstance(values, Mapping):
        keys = ", ".join((*_OF_A_SWEEP, *_OWN))
        fault = f"a sequence must be a mapping with the keys {keys}, but got {values!r}"
        return SequenceSpec(sweep=parse_leniently({})[0], sequential=()), [fault]
    try:
        given = plain_copy(values)
    except RecursionError:
        return SequenceSpec(sweep=parse_leniently({})[0], sequential=()), ["a sequence must not contain itself"]
    own = {name: given.pop(name) for name in _OWN if name in given}
    known = (*_OF_A_SWEEP, *_OWN)
    faults = [f"{key}: {unknown_key(key, known)}" for key in given if key not in known]
    sweep, of_sweep = parse_leniently({key: value for key, value in given.items() if key in _OF_A_SWEEP})
    # Where the tasks are faulty, others stand in their place.
    are_tasks_sound = not any(fault.startswith("tasks") for fault in of_sweep)
    faults += of_sweep + _sweep_faults(sweep, are_tasks_sound=are_tasks_sound)
    methods = [entry.method for entry in sweep.methods]
    sound: dict[str, Any] = {}
    for name in ("max_train_rows", "max_evaluation_rows"):
        value = own.get(name)
        if value is None or (isinstance(value, int) and not isinstance(value, bool) and value >= 1):
            sound[name] = value
        else:
            faults.append(f"{name}: must be a whole number >= 1, but got {value!r}")
    if isinstance(shuffle := own.get("shuffle", False), bool):
        sound["shuffle"] = shuffle
    else:
        faults.append(f"shuffle: must be true or false, but got {shuffle!r}")
    sequential = own.get("sequential")
    if sequential is None:
        go_on = plugins_declaring("trainables.methods", "GOES_ON", True)
        sequential = [method for method in methods if method in go_on]
    if isinstance(sequential, str):
        sequential = [sequential]
    if not isinstance(sequential, list) or not all(isinstance(method, str) for method in sequential):
        faults.append(f"sequential: must be a list of methods, but got {sequential!r}")
        sequential = []
    faults += [
        f"sequential: {unknown_name('method of this sequence', method, methods)}"
        for method in sequential
        if method not in methods
    ]
    return SequenceSpec(sweep=sweep, sequential=tuple(dict.fromkeys(sequential)), **sound), faults


def _sweep_faults(sweep: SweepSpec, *, are_tasks_sound: bool) -> list[str]:
    """What a sweep may have and a sequence may not."""
    faults = []
    if are_tasks_sound and len(sweep.tasks) < 2:
        faults.append(f"tasks: must be at least 2, one after another, but got {', '.join(sweep.tasks)}")
    if len(sweep.backbones) > 1:
        faults.append(f"backbone: must be one, but got {', '.join(sweep.backbones)}")
    methods = [entry.method for entry in sweep.methods]
    faults += [
        f"methods: every method must stand once, but {method} stands {methods.count(method)} times"
        for method in dict.fromkeys(methods)
        if methods.count(method) > 1
    ]
    spaces = [("space", sweep.space), *((entry.method, entry.space) for entry in sweep.methods)]
    return faults + [
        f"{where}.{name}: must be one value, since a sequence searches nothing, but got {entry.to_json()!r}"
        for where, space in spaces
        for name, entry in space.items()
        if hasattr(entry, "to_json")
    ]
