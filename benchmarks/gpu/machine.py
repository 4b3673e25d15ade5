"""What the numbers were measured on."""

from __future__ import annotations

import subprocess
from typing import Any

import torch

from benchmarks._provenance import provenance
from benchmarks.gpu.record import Quantity, maybe, measured, unmeasured

LIBRARIES = ("torch", "triton", "transformers", "accelerate", "peft", "numpy", "pyarrow", "safetensors", "scikit-learn")


def describe(device: torch.device) -> dict[str, Any]:
    """Commit, machine, libraries, and the card with its driver."""
    found = provenance(LIBRARIES)
    del found["accelerator"]  # told at length under "card"
    return {**found, "commit": maybe(found["commit"], "", "not run from a git checkout"), "card": _card(device)}


def _card(device: torch.device) -> dict[str, Quantity]:
    if device.type != "cuda":
        names = ("name", "driver", "memory", "free_memory", "multiprocessors", "capability", "cuda")
        return {name: unmeasured("", "run on a CPU") for name in names}
    properties = torch.cuda.get_device_properties(device)
    return {
        "name": measured(properties.name, ""),
        "driver": maybe(_driver(), "", "nvidia-smi did not tell"),
        "memory": measured(properties.total_memory, "bytes"),
        "free_memory": measured(torch.cuda.mem_get_info(device)[0], "bytes"),
        "multiprocessors": measured(properties.multi_processor_count, ""),
        "capability": measured(f"{properties.major}.{properties.minor}", ""),
        "cuda": maybe(torch.version.cuda, "", "torch was not built with CUDA"),
    }


def _driver() -> str | None:
    command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=20)
    except (OSError, subprocess.SubprocessError):
        return None
    return next(iter(done.stdout.split()), None)
