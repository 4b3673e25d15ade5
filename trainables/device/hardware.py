"""The devices engines run on: which there are, and what they are called."""

from __future__ import annotations

import os
import platform

import torch

from trainables.device.dtype import compute_dtype

Device = torch.device


def default_device() -> Device:
    """What an engine takes that is told of none: the first GPU, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def device_name(device: torch.device) -> str:
    """A GPU by its product name, a CPU with its number of cores."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{torch.cpu.get_capabilities().get('cpu_name', platform.machine())} x{os.cpu_count()}"


def describe_devices() -> list[str]:
    """The devices an engine could use, each with what its products are computed in under precision "auto"."""
    devices = [torch.device("cuda", index) for index in range(torch.cuda.device_count())] or [torch.device("cpu")]
    return [
        f"{device}: {device_name(device)}, {str(compute_dtype('auto', device)).removeprefix('torch.')}"
        for device in devices
    ]


def count_devices() -> int:
    """How many engines this machine would run: one a GPU, or one a CPU core."""
    return torch.cuda.device_count() or os.cpu_count() or 1
