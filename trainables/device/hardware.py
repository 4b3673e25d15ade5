"""The devices engines run on: which there are, and what they are called."""

from __future__ import annotations

import os
import platform

import torch

from trainables.device import container
from trainables.device.dtype import compute_dtype
from trainables.device.memory import is_out_of_memory
from trainables.faults import FaultsError

Device = torch.device


class DeviceLostError(RuntimeError):
    """A GPU answers this process no more, whatever it is asked: another process may still use it."""


def raise_if_lost(device: torch.device, error: BaseException | None) -> None:
    """Raise `DeviceLostError`, from this error, where a device does nothing more for this process.

    Some errors of CUDA, such as an illegal access, an assertion in a kernel or a fault of the card, come again with
    every call that follows: whatever broke first, it is no fault of what is tried next.
    """
    if device.type != "cuda":
        return
    try:
        torch.cuda.synchronize(device)
    except RuntimeError as lost:
        if is_out_of_memory(lost):
            return
        raise DeviceLostError(f"{device} does nothing more for this process: {lost}") from error


def default_device() -> Device:
    """What an engine takes that is told of none: the first GPU, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def device_named(name: str | None) -> Device:
    """The device of this name, the default one for None; raises `FaultsError` where nothing can be trained on it."""
    if name is None:
        return default_device()
    try:
        device = torch.device(name)
    except RuntimeError:
        device = None
    if device is None or device.type not in ("cpu", "cuda"):
        raise FaultsError("device", [f"the device must be cpu, cuda or cuda:N, but is {name!r}; cpu works everywhere"])
    there = torch.cuda.device_count()
    if device.type == "cuda" and (device.index or 0) >= there:
        found = f"{there} GPUs of CUDA here, counted from 0" if there else "no GPU of CUDA here"
        raise FaultsError("device", [f"the device must be there, but is {name!r} and torch sees {found}"])
    return device


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


def gpus_seen() -> int:
    """How many GPUs torch sees and can use."""
    return torch.cuda.device_count()


def is_built_for_gpus() -> bool:
    """Whether this torch could use a GPU, were there one and a driver for it."""
    return torch.backends.cuda.is_built()


def num_cores() -> int:
    """The CPU cores of this machine, or of its container where that is given the time of fewer."""
    cores, given = os.cpu_count() or 1, container.num_cpus()
    return cores if given is None else min(cores, given)


def count_devices() -> int:
    """How many engines this machine would run: one a GPU, or one a CPU core."""
    return gpus_seen() or num_cores()
