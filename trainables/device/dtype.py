"""The devices engines run on: their names, and what products are computed in."""

from __future__ import annotations

import os
import platform

import torch

Device = torch.device


def default_device() -> Device:
    """What an engine takes that is told of none: the first GPU, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def device_name(device: torch.device) -> str:
    """A GPU by its product name, a CPU with its number of cores."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{torch.cpu.get_capabilities().get('cpu_name', platform.machine())} x{os.cpu_count()}"


def compute_dtype(precision: str, device: torch.device) -> torch.dtype:
    """The dtype of products: "auto" is bf16 where the device computes in it, float32 elsewhere."""
    if precision == "auto":
        precision = "bf16" if _has_bf16(device) else "fp32"
    return {"bf16": torch.bfloat16, "fp32": torch.float32}[precision]


def _has_bf16(device: torch.device) -> bool:
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return device.type == "cpu" and bool(torch.backends.mkldnn.is_available() and _cpu_has_bf16())


def _cpu_has_bf16() -> bool:
    """Whether the CPU multiplies bf16 in hardware; emulated, it is slower than float32."""
    capabilities = torch.cpu.get_capabilities()
    return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16") or capabilities.get("bf16"))


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
