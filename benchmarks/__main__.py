"""Run the benchmarks named on the command line, or all; keep the numbers with date, commit and machine.

`gpu` has arguments of its own and runs only where it is named.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import benchmarks
from benchmarks import NotMeasuredError
from benchmarks._provenance import provenance
from trainables.discovery import load_plugin, plugin_names

FOLDER = Path(__file__).parent
LIBRARIES = ("torch", "transformers", "ray", "mlflow", "pyarrow")
BY_NAME_ONLY = ("gpu",)


def default_names() -> list[str]:
    """What runs where nothing is named."""
    return [name for name in plugin_names(benchmarks) if name not in BY_NAME_ONLY]


def main(names: list[str]) -> None:
    if names[:1] == ["gpu"]:
        from benchmarks.gpu.command import main as measure_gpu

        sys.exit(measure_gpu(names[1:]))
    taken_at = datetime.now(UTC)
    measured: dict[str, Mapping[str, Any]] = {}
    for name in names or default_names():
        try:
            measured[name] = load_plugin(benchmarks, "benchmark", name).measure()
        except NotMeasuredError as reason:
            measured[name] = {"not_measured": str(reason)}
            print(f"{name}: not measured: {reason}")
            continue
        for quantity, value in measured[name].items():
            print(f"{name}.{quantity} = {_shown(value)}")
    result = {"taken_at": taken_at.isoformat(timespec="seconds"), **provenance(LIBRARIES), "measured": measured}
    path = FOLDER / "results" / f"{taken_at:%Y-%m-%dT%H%M%SZ}.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    print(f"kept in {path.relative_to(FOLDER.parent)}")


def _shown(value: float | Sequence[float] | str | None) -> str:
    """A number, some numbers, a word, or what was not measured, for people."""
    if value is None:
        return "not measured"
    if isinstance(value, str):
        return value
    return f"{value:.4g}" if isinstance(value, int | float) else ", ".join(f"{one:.4g}" for one in value)


if __name__ == "__main__":
    main(sys.argv[1:])
