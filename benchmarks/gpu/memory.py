"""The peak memory of packs against the arithmetic by which the engine decides how many trials to pack."""

from __future__ import annotations

import itertools

from benchmarks.gpu.packs import FEW_STEPS, WARM_UP_STEPS, encoder, memory_model, synthetic_pack
from benchmarks.gpu.record import measured, unmeasured
from benchmarks.gpu.run import Run

UNITS = {"peak": "bytes", "arithmetic": "bytes", "peak_of_arithmetic": "ratio"}


def measure(run: Run) -> None:
    if run.device.type == "cpu":
        run.note("on a CPU the peak is that of the process's resident memory, which earlier parts have already raised")
    encoders = {name: encoder(configuration, run.device) for name, configuration in run.sizes.backbones.items()}
    lengths = (run.sizes.lengths[-1], run.sizes.lengths[0])
    for length, num_trials, name in itertools.product(lengths, reversed(run.sizes.memory_packs), encoders):
        where = {"backbone": name, "length": length, "trials": num_trials}
        if run.deadline.has_passed():
            run.leave_out(where, UNITS)
            continue
        backbone = encoders[name]
        pack = synthetic_pack(backbone, run.sizes, length=length, num_trials=num_trials, steps=FEW_STEPS)
        for _ in range(WARM_UP_STEPS):  # moments are there from the first step on
            pack.step()
        pack.wait()
        promised = memory_model(
            backbone.shape,
            run.sizes,
            length=length,
            dtype=backbone.compute_dtype,
            bytes_per_trial=pack.bytes_per_trial,
            tokens_per_slice=pack.tokens_per_slice,
        ).pack_bytes(num_trials)
        peak = pack.peak_bytes()
        if peak is None:
            reason = "the system does not tell"
            run.add(
                where,
                {"peak": unmeasured("bytes", reason), "arithmetic": measured(promised, "bytes")}
                | {"peak_of_arithmetic": unmeasured("ratio", reason)},
            )
            continue
        run.add(
            where,
            {
                "peak": measured(peak, "bytes"),
                "arithmetic": measured(promised, "bytes"),
                "peak_of_arithmetic": measured(peak / promised, "ratio"),
            },
        )
