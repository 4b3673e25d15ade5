"""Where a result came from: versions, commit, device. Kept with every trial."""

from __future__ import annotations

import platform
import subprocess
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

from trainables.config import OUTCOME_VERSION
from trainables.device.hardware import device_name

PACKAGES = ("adaptune", "torch", "transformers", "numpy")


def provenance(device: torch.device, compute_dtype: torch.dtype) -> dict[str, str]:
    """What decided a trial's outcome beside its configuration, as far as this machine can tell."""
    found = {name: _version(name) for name in PACKAGES} | {"commit": source_commit()}
    return {
        **{name: value for name, value in found.items() if value is not None},
        "python": platform.python_version(),
        "outcome_version": str(OUTCOME_VERSION),
        "device": device_name(device),
        "precision": str(compute_dtype).removeprefix("torch."),
        "num_threads": str(torch.get_num_threads()),
    }


@lru_cache(maxsize=1)
def source_commit() -> str | None:
    """The commit this code runs from, with "-dirty" where it was changed since; None outside a checkout."""
    root = Path(__file__).parents[2]
    if not (root / ".git").exists():
        return None
    try:
        described = subprocess.run(
            ["git", "-C", str(root), "describe", "--always", "--abbrev=40", "--dirty", "--exclude=*"],
            capture_output=True,
            text=True,
            timeout=10,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return described.stdout.strip() or None


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
