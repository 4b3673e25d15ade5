"""Calibrations kept beside the tokenised tasks, one file a machine, device and set of library versions.

A later plan on the same machine reads them. A file that is damaged, or of another version, counts as none.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import platform
import uuid
from dataclasses import asdict, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from trainables.data.tokenized import cache_path
from trainables.device.hardware import device_name
from trainables.device.provenance import PACKAGES
from trainables.estimate.calibration import Calibration
from trainables.estimate.throughput import Throughput, WorkloadKey

logger = logging.getLogger(__name__)

FORMAT_VERSION = 2


def calibration_path(device: torch.device, cache_dir: Path | None = None) -> Path:
    """Where calibrations of this machine's devices are kept."""
    key = "\n".join([str(FORMAT_VERSION), platform.node(), device_name(device), *map(_version, PACKAGES)])
    root = cache_path("", "", 0, cache_dir).parent.parent
    return root / "calibrations" / f"{hashlib.sha256(key.encode()).hexdigest()[:32]}.json"


def keep_calibration(calibration: Calibration, device: torch.device, cache_dir: Path | None = None) -> Path | None:
    """Keep a calibration for later plans, with what earlier ones found of other tasks and methods.

    Returns its file; None where that cannot be written.
    """
    path = calibration_path(device, cache_dir)
    if (earlier := read_calibration(device, cache_dir)) is not None:
        # Of a task and method only what was measured together is comparable: the machine may have been busier before.
        measured = {_group(throughput) for throughput in calibration.throughputs}
        others = [each for each in earlier.throughputs if _group(each) not in measured]
        calibration = replace(
            calibration,
            throughputs=(*calibration.throughputs, *others),
            task_s={**earlier.task_s, **calibration.task_s},
        )
    temporary = path.with_suffix(f".{uuid.uuid4().hex}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_text(json.dumps(asdict(calibration), indent=1), encoding="utf-8")
        os.replace(temporary, path)
    except OSError as error:
        logger.warning("cannot keep the calibration in %s, so later plans measure again: %s", path, error)
        with contextlib.suppress(OSError):
            temporary.unlink()
        return None
    return path


def read_calibration(device: torch.device, cache_dir: Path | None = None) -> Calibration | None:
    """What earlier calibrations of this machine found; None where there is nothing, or nothing whole."""
    path = calibration_path(device, cache_dir)
    try:
        values: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        throughputs = tuple(Throughput.from_json(throughput) for throughput in values["throughputs"])
        return Calibration(**{**values, "throughputs": throughputs, "faults": tuple(values["faults"])})
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        logger.warning("%s is damaged and counts as none: %s", path, error)
        return None


def _group(throughput: Throughput) -> WorkloadKey:
    return replace(throughput.kind, shape="")


def _version(package: str) -> str:
    try:
        return f"{package} {version(package)}"
    except PackageNotFoundError:
        return package
