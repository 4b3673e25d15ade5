"""The record as tables for people, a part after the other: on the left what was varied, then what was measured."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

EMPTY = "-"


def render(content: Mapping[str, Any]) -> str:
    """The whole record as text; a dash is what was not measured, with the reasons below each table."""
    lines = [content["kind"], _machine(content)]
    for name, part in content["parts"].items():
        lines += ["", f"== {name}: {part['status']} after {_shown(part['seconds'])} s"]
        if part["reason"]:
            lines.append(_shortened(part["reason"].strip().splitlines()[-1]))
        lines += [f"note: {note}" for note in part["notes"]]
        # One table for the points that were varied alike.
        for keys in dict.fromkeys(tuple(point["where"]) for point in part["points"]):
            lines += ["", *_table([point for point in part["points"] if tuple(point["where"]) == keys])]
        lines += [f"{EMPTY} {reason}" for reason in _reasons(part["points"])]
    return "\n".join(lines)


def _shortened(text: str, width: int = 200) -> str:
    return text if len(text) <= width else f"{text[:width]} ... (the rest is in the JSON file)"


def _machine(content: Mapping[str, Any]) -> str:
    card = content["card"]["name"]["value"] or content["processor"]
    versions = ", ".join(f"{name} {content['versions'][name]}" for name in ("torch", "triton", "transformers"))
    return f"{card}; driver {_shown(content['card']['driver'])}; {versions}; commit {_shown(content['commit'])}"


def _table(points: Sequence[Mapping[str, Any]]) -> list[str]:
    units = {name: quantity["unit"] for point in points for name, quantity in point["measured"].items()}
    header = [*points[0]["where"], *(f"{name} [{unit}]" if unit else name for name, unit in units.items())]
    rows = [
        [
            *(str(value) for value in point["where"].values()),
            *(_shown(point["measured"].get(name)) for name in units),
        ]
        for point in points
    ]
    widths = [max(len(line[column]) for line in (header, *rows)) for column in range(len(header))]
    return [
        "  ".join(cell.rjust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in (header, *rows)
    ]


def _shown(quantity: Mapping[str, Any] | None) -> str:
    if quantity is None or quantity["value"] is None:
        return EMPTY
    value = quantity["value"]
    if isinstance(value, float):
        return f"{value:.4g}"
    return f"{value / 2**20:.1f}Mi" if quantity["unit"] == "bytes" and value >= 2**20 else str(value)


def _reasons(points: Iterable[Mapping[str, Any]]) -> list[str]:
    found = (quantity.get("reason") for point in points for quantity in point["measured"].values())
    return list(dict.fromkeys(reason for reason in found if reason))
