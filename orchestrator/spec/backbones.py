"""The backbones of a sweep as its file names them, and what each is called where several stand side by side."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from orchestrator.spec.space import Grid
from trainables.faults import FaultsError


def parse_backbones(value: Any) -> str | tuple[str, ...]:
    """Read one reference, a list of them, or `{grid: [...]}`. A list of one is that one.

    Raises `FaultsError` with every fault of the value.
    """
    if isinstance(value, str):
        if not value:
            raise FaultsError("backbone", ["must not be empty, but got ''"])
        return value
    names = names_in(value)
    if names is None:
        came = "nothing" if value is None else repr(value)
        raise FaultsError("backbone", [f"must be text, but got {came}; several are a list or {{grid: [...]}}"])
    faults = [f"must hold names or paths, but got {name!r}" for name in names if not isinstance(name, str) or not name]
    if not names:
        faults.append("must hold at least 1, but got an empty list")
    texts = [name for name in names if isinstance(name, str)]
    twice = dict.fromkeys(name for place, name in enumerate(texts) if name in texts[:place])
    faults += [f"every backbone must stand once, but {name!r} stands twice" for name in twice]
    if faults:
        raise FaultsError("backbone", faults)
    return names[0] if len(names) == 1 else tuple(names)


def names_in(value: Any) -> list[Any] | None:
    """What a list or a grid of backbones holds, unchecked; None where it is neither."""
    if isinstance(value, Grid):
        return list(value.values)
    if isinstance(value, Mapping) and list(value) == ["grid"]:
        value = value["grid"]
    return list(value) if isinstance(value, list | tuple) else None


def short_names(references: Iterable[str]) -> dict[str, str]:
    """What each backbone is called beside the others: the end of its path or hub id by which no two are the same."""
    places = {each: each.partition("?")[0] if "://" in each else each for each in references}  # without settings
    parts = {each: [part for part in place.split("/") if part] or [each] for each, place in places.items()}
    length = dict.fromkeys(parts, 1)
    while True:
        names = {reference: "/".join(own[-length[reference] :]) for reference, own in parts.items()}
        by_name: dict[str, list[str]] = {}
        for reference, name in names.items():
            by_name.setdefault(name, []).append(reference)
        alike = [each for found in by_name.values() if len(found) > 1 for each in found]
        longer = [reference for reference in alike if length[reference] < len(parts[reference])]
        if not longer:
            return names | {reference: reference for reference in alike}
        for reference in longer:
            length[reference] += 1


def apart(references: Iterable[str]) -> dict[str, str]:
    """`short_names` of several backbones; nothing of one, which needs no name to be told apart."""
    distinct = dict.fromkeys(references)
    return short_names(distinct) if len(distinct) > 1 else {}
