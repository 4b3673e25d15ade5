"""Where one step goes: its ten largest kernels, and how much of the step the device was busy at all.

On a CPU: the ten operations that took longest in themselves.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from benchmarks.gpu.packs import MeasuredPack, encoder, median, synthetic_pack
from benchmarks.gpu.record import measured, unmeasured
from benchmarks.gpu.run import Run
from benchmarks.gpu.trace import device_calls, operations_on_cpu, summed, trace, warm_up_profiler

TOP = 10
LENGTHS = (32, 128)
LONGEST_NAME = 100
UNITS = {"time": "s", "share": "share", "calls": "a step"}
NOT_SEEN = "the profiler saw no kernel: it may not be allowed to watch the device here"


def measure(run: Run) -> None:
    on_cpu = run.device.type == "cpu"
    if on_cpu:
        run.note("a rehearsal: operations of a CPU by their own time, where a GPU would have kernels")
    warm_up_profiler(run.device, run.scratch)
    for (name, configuration), length in itertools.product(run.sizes.backbones.items(), LENGTHS):
        where = {"backbone": name, "length": length, "trials": run.sizes.profile_pack}
        if run.deadline.has_passed():
            run.leave_out(where, UNITS)
            continue
        backbone = encoder(configuration, run.device)
        pack = synthetic_pack(backbone, run.sizes, length=length, num_trials=run.sizes.profile_pack)
        times = pack.time_steps(run.sizes.step_seconds / 2, run.deadline)
        if not times:
            run.leave_out(where, UNITS)
            continue
        longest = operations_on_cpu(pack.step) if on_cpu else _kernels(run, pack)
        if not longest:
            run.leave_out(where, UNITS, NOT_SEEN)
            continue
        _add(run, where, sorted(longest, key=lambda call: -call[1]), median(times), on_cpu=on_cpu)


def _kernels(run: Run, pack: MeasuredPack) -> list[tuple[str, float, int]]:
    def step() -> None:
        pack.step()
        pack.wait()

    return summed(device_calls(trace(step, run.scratch)))


def _add(
    run: Run, where: dict[str, object], calls: Sequence[tuple[str, float, int]], step_s: float, *, on_cpu: bool
) -> None:
    whole = sum(seconds for _, seconds, _ in calls)
    busy = (
        unmeasured("share", "a CPU is not apart from what drives it") if on_cpu else measured(whole / step_s, "share")
    )
    run.add(
        where,
        {
            "step_unprofiled": measured(step_s, "s"),
            "time": measured(whole, "s"),
            "busy": busy,
            "calls": measured(sum(count for _, _, count in calls), "a step"),
        },
    )
    for rank, (name, seconds, count) in enumerate(calls[:TOP], start=1):
        run.add(
            {**where, "rank": rank, "kernel": name[:LONGEST_NAME]},
            {
                "time": measured(seconds, "s"),
                "share": measured(seconds / whole, "share"),
                "calls": measured(count, "a step"),
            },
        )
