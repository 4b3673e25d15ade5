"""How many kernels a step launches, kernel by kernel and captured, and whether that grows with the trials in the pack.

On a CPU nothing is launched; there the operations that torch dispatches are counted in their place.
"""

from __future__ import annotations

import itertools

from benchmarks.gpu.packs import FEW_STEPS, WARM_UP_STEPS, encoder, synthetic_pack
from benchmarks.gpu.record import maybe, measured, unmeasured
from benchmarks.gpu.run import Run
from benchmarks.gpu.trace import device_calls, dispatched, host_launches, trace, warm_up_profiler

LENGTH = 32
NOT_ON_CPU = "a CPU launches no kernels; see dispatched_operations"
NOT_SEEN = "the profiler saw no kernel: it may not be allowed to watch the device here"
NO_GRAPHS = "steps could not be captured, or were not to be (ADAPTUNE_GRAPHS)"
UNITS = dict.fromkeys(("dispatched_operations", "kernels", "host_launches"), "a step")


def measure(run: Run) -> None:
    name, configuration = next(iter(run.sizes.backbones.items()))
    backbone = encoder(configuration, run.device)
    warm_up_profiler(run.device, run.scratch)
    captures = (False,) if run.device.type == "cpu" else (False, True)
    for num_trials, graphs in itertools.product(run.sizes.launch_packs, captures):
        where = {"backbone": name, "length": LENGTH, "trials": num_trials, "graphs": "on" if graphs else "off"}
        if run.deadline.has_passed():
            run.leave_out(where, UNITS)
            continue
        pack = synthetic_pack(backbone, run.sizes, length=LENGTH, num_trials=num_trials, steps=FEW_STEPS, graphs=graphs)
        for _ in range(WARM_UP_STEPS):
            pack.step()
        pack.wait()
        if graphs and not pack.has_graphs:
            run.leave_out(where, UNITS, NO_GRAPHS)
            continue
        operations = measured(dispatched(pack.step), "a step")
        if run.device.type == "cpu":
            nothing = unmeasured("a step", NOT_ON_CPU)
            run.add(where, {"dispatched_operations": operations, "kernels": nothing, "host_launches": nothing})
            continue

        def step(pack: object = pack) -> None:
            pack.step()  # type: ignore[attr-defined]
            pack.wait()  # type: ignore[attr-defined]

        events = trace(step, run.scratch)
        run.add(
            where,
            {
                "dispatched_operations": operations,
                "kernels": maybe(len(device_calls(events)) or None, "a step", NOT_SEEN),
                "host_launches": maybe(host_launches(events) or None, "a step", NOT_SEEN),
            },
        )
