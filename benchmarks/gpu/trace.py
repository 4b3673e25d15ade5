"""What a step asks of the device, one call after the other."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile
from torch.utils._python_dispatch import TorchDispatchMode

Events = Sequence[Mapping[str, Any]]

# Categories of the profiler's trace: what ran on the device, and calls by which the host had it run.
ON_DEVICE = ("kernel", "gpu_memcpy", "gpu_memset")
HOST_CALLS = ("cuda_runtime", "cuda_driver")
LAUNCHING = ("Launch", "Memcpy", "Memset")


def trace(step: Callable[[], None], scratch: Path) -> Events:
    """The profiler's events of one step, host and device; `step` must wait for the device at its end."""
    with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as profiler:
        step()
    path = scratch / "trace.json"
    profiler.export_chrome_trace(str(path))
    events: Events = json.loads(path.read_text(encoding="utf-8"), strict=False)["traceEvents"]
    path.unlink()
    return events


def device_calls(events: Events) -> list[tuple[str, float]]:
    """Each kernel, copy and fill that ran on the device: its name and seconds."""
    return [(event["name"], event["dur"] / 1e6) for event in events if event.get("cat") in ON_DEVICE]


def host_launches(events: Events) -> int:
    """Calls by which the host launched a kernel, a graph, a copy or a fill."""
    calls = (event["name"] for event in events if event.get("cat") in HOST_CALLS)
    return sum(any(word in name for word in LAUNCHING) for name in calls)


def operations_on_cpu(step: Callable[[], None]) -> list[tuple[str, float, int]]:
    """Each operation of a step on a CPU: its name, seconds in itself alone, and how often it was called."""
    with profile(activities=[ProfilerActivity.CPU]) as profiler:
        step()
    return [(event.key, event.self_cpu_time_total / 1e6, event.count) for event in profiler.key_averages()]


def dispatched(step: Callable[[], None]) -> int:
    """How many operations a step dispatches, views included, forwards and backwards."""
    with _Counting() as counting:
        step()
    return counting.count


def summed(calls: Sequence[tuple[str, float]]) -> list[tuple[str, float, int]]:
    """Seconds and number of calls by name, the longest first."""
    seconds: Counter[str] = Counter()
    for name, each in calls:
        seconds[name] += each
    numbers = Counter(name for name, _ in calls)
    return [(name, total, numbers[name]) for name, total in seconds.most_common()]


class _Counting(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += 1
        return func(*args, **(kwargs or {}))


def warm_up_profiler(device: torch.device, scratch: Path) -> None:
    """The first profile of a process starts the tracing library, which takes seconds and would be counted in."""
    if device.type == "cuda":
        trace(lambda: torch.cuda.synchronize(device), scratch)
