"""What was measured, written to disk whenever something is added: a run that is cut off leaves all it had measured."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

Quantity = Mapping[str, Any]  # value, unit, and the reason where there is no value

# Of a part. All but the first two are ends.
STATUSES = ("waiting", "running", "finished", "cut short", "not measured", "failed", "interrupted")


def measured(value: float | int | str | bool, unit: str) -> Quantity:
    """A value with its unit, "" where it has none. What is not a finite number counts as not measured."""
    if isinstance(value, float) and not math.isfinite(value):
        return unmeasured(unit, f"it came out as {value}")
    return {"value": value, "unit": unit}


def unmeasured(unit: str, reason: str) -> Quantity:
    """In the place of a value: why there is none."""
    return {"value": None, "unit": unit, "reason": reason}


def maybe(value: float | int | str | None, unit: str, reason: str) -> Quantity:
    """The value, or the reason where it is None."""
    return unmeasured(unit, reason) if value is None else measured(value, unit)


class Record:
    """The JSON file of one run.

    Args:
        path: where to write it; a whole file stands there at any time after the first `write`.
        header: what it was measured on, and how.
        parts: their names, in order.
    """

    def __init__(self, path: Path, header: Mapping[str, Any], parts: Sequence[str]) -> None:
        self.path = path
        not_yet = unmeasured("s", "the part has not begun")
        self.content: dict[str, Any] = {
            **header,
            "seconds": unmeasured("s", "the run has not ended"),
            "parts": {
                name: {"status": "waiting", "reason": None, "seconds": not_yet, "notes": [], "points": []}
                for name in parts
            },
        }

    def begin(self, part: str) -> None:
        self.content["parts"][part] |= {"status": "running", "seconds": unmeasured("s", "the part has not ended")}
        self.write()

    def note(self, part: str, text: str) -> None:
        """Something that a reader of the part's numbers must know."""
        self.content["parts"][part]["notes"].append(text)
        self.write()

    def add(self, part: str, where: Mapping[str, Any], quantities: Mapping[str, Quantity]) -> None:
        """A point: what was varied, and what was measured there."""
        self.content["parts"][part]["points"].append({"where": dict(where), "measured": dict(quantities)})
        self.write()

    def end(self, part: str, status: str, seconds: float, reason: str | None = None) -> None:
        assert status in STATUSES
        self.content["parts"][part] |= {"status": status, "reason": reason, "seconds": measured(seconds, "s")}
        self.write()

    def close(self, seconds: float) -> None:
        self.content["seconds"] = measured(seconds, "s")
        self.write()

    def write(self) -> None:
        """Into a file beside it first, so that there is no moment at which half a file stands there."""
        beside = self.path.with_suffix(".tmp")
        beside.write_text(json.dumps(self.content, indent=2, allow_nan=False) + "\n", encoding="utf-8")
        os.replace(beside, self.path)
