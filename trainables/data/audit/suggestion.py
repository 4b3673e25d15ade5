"""The task.json that says what was found in a task folder, so that it need not be found again."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from trainables.data.layout import DECLARATION, ending_of
from trainables.data.paths import read_json
from trainables.task import Reading, Task

_MANY_NAMES = 100  # of classes, which a task.json would hardly be read for


def declared_in(folder: Path) -> dict[str, Any]:
    """What a folder's task.json says, as it is written; empty where there is none."""
    path = folder / DECLARATION
    return dict(read_json(path, encoding="utf-8-sig")) if path.exists() else {}


def suggest(task: Task, declared: Mapping[str, Any]) -> dict[str, Any]:
    """The task.json of a task that was read: all that is declared, as it is, and what else was found.

    The rows are read with it as they are without it.
    """
    info = task.info
    found: dict[str, Any] = {"name": info.name, "kind": info.kind}
    if info.label_names and len(info.label_names) <= _MANY_NAMES:
        found["label_names"] = list(info.label_names)
    elif info.kind == "classification":
        found["num_labels"] = info.num_labels
    found["metric"] = info.metric
    found |= _format(task.readings)
    if "num_labels" in declared and "label_names" not in declared:
        found.pop("label_names", None)
    return {**found, **declared}


def written(values: Mapping[str, Any]) -> str:
    """As the text of a task.json: a key a line."""
    lines = [f"  {json.dumps(key)}: {json.dumps(value, ensure_ascii=False)}" for key, value in values.items()]
    return "{\n" + ",\n".join(lines) + "\n}\n"


def _format(readings: tuple[Reading, ...]) -> dict[str, Any]:
    """What all files have in common of how they were read, and a reader would not take for granted."""
    found: dict[str, Any] = {}
    for key in ("columns", "delimiter", "encoding"):
        values = [reading.format[key] for reading in readings if key in reading.format]
        if values and len(values) == len(readings) and all(value == values[0] for value in values):
            found[key] = values[0]
    if "columns" in found and all(ours == theirs for ours, theirs in found["columns"].items()):
        del found["columns"]
    if "columns" in found and "text_a" not in found["columns"]:
        del found["columns"]
    endings = {ending_of(file) for reading in readings for file in reading.files}
    if found.get("delimiter") == ("," if endings == {".csv"} else "\t"):
        del found["delimiter"]
    if found.get("encoding", "utf-8") in ("utf-8", "utf-8-sig"):
        found.pop("encoding", None)
    return found
