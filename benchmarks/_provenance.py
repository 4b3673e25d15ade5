"""What a number is worth nothing without: commit, machine, versions."""

from __future__ import annotations

import importlib
import os
import platform
import subprocess
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent
BF16_INSTRUCTIONS = ("avx512_bf16", "amx_bf16", "bf16")  # the last is Arm's


def provenance(libraries: Sequence[str]) -> dict[str, Any]:
    """Commit, machine and accelerator, and the versions of some libraries; None for what this machine cannot tell."""
    torch = importlib.import_module("torch")
    return {
        "commit": _git("describe", "--always", "--dirty", "--abbrev=12"),
        "machine": platform.platform(),
        "processor": _processor(),
        "bf16_instructions": _bf16_instructions(),
        "cpus": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "accelerator": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "python": platform.python_version(),
        "versions": {name: _version(name) for name in libraries},
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
    return _cpuinfo("model name") or platform.machine()


def _bf16_instructions() -> list[str] | None:
    """Which instructions for products in bf16 the processor has; None where the system does not say."""
    flags = _cpuinfo("flags") or _cpuinfo("Features")
    return None if flags is None else [name for name in BF16_INSTRUCTIONS if name in flags.split()]


def _cpuinfo(name: str) -> str | None:
    """What Linux says of the first processor under this name."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text(encoding="utf-8").splitlines() if cpuinfo.exists() else []
    return next((line.partition(":")[2].strip() for line in lines if line.partition(":")[0].strip() == name), None)
