"""Run the benchmarks named on the command line, or all; keep the numbers with date, commit and machine."""

from __future__ import annotations

import importlib
import json
import os
import platform
import subprocess
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import benchmarks
from benchmarks import NotMeasuredError
from trainables.discovery import load_plugin, plugin_names

FOLDER = Path(__file__).parent
LIBRARIES = ("torch", "transformers", "ray", "mlflow", "pyarrow")


def main(names: list[str]) -> None:
    taken_at = datetime.now(UTC)
    measured: dict[str, Mapping[str, Any]] = {}
    for name in names or plugin_names(benchmarks):
        try:
            measured[name] = load_plugin(benchmarks, "benchmark", name).measure()
        except NotMeasuredError as reason:
            measured[name] = {"not_measured": str(reason)}
            print(f"{name}: not measured: {reason}")
            continue
        for quantity, value in measured[name].items():
            print(f"{name}.{quantity} = {_shown(value)}")
    result = {"taken_at": taken_at.isoformat(timespec="seconds"), **provenance(), "measured": measured}
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


def provenance() -> dict[str, object]:
    """What a number is worth nothing without."""
    torch = importlib.import_module("torch")
    return {
        "commit": _git("describe", "--always", "--dirty", "--abbrev=12"),
        "machine": platform.platform(),
        "processor": _processor(),
        "cpus": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "accelerator": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "python": platform.python_version(),
        "versions": {name: _version(name) for name in LIBRARIES},
    }


def _version(library: str) -> str | None:
    """None where it is not installed: what trains needs neither Ray nor MLflow."""
    try:
        return metadata.version(library)
    except metadata.PackageNotFoundError:
        return None


def _git(*arguments: str) -> str | None:
    try:
        done = subprocess.run(["git", *arguments], cwd=FOLDER, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout.strip()


def _processor() -> str:
    """The processor's name; `platform` knows only its architecture on Linux."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text(encoding="utf-8").splitlines() if cpuinfo.exists() else []
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())


if __name__ == "__main__":
    main(sys.argv[1:])
