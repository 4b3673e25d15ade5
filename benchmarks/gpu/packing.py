"""What packing buys on this device: examples a second, and the share of its own rate of matrix products.

The points that tell most come first: each backbone and length at K = 1 and 16, then 32 and 4, then 16 without captured
steps, then as many trials as memory, time or a cap allow.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import Any

from benchmarks.gpu.packs import (
    FEW_STEPS,
    MANY_STEPS,
    MeasuredPack,
    encoder,
    example_flops,
    expected_seconds,
    median,
    memory_model,
    synthetic_pack,
)
from benchmarks.gpu.record import maybe, measured, unmeasured
from benchmarks.gpu.run import Run
from trainables.device.memory import free_bytes, is_out_of_memory, release_unused
from trainables.engine.pack_size import SAFETY
from trainables.estimate.flops import measure_rate
from trainables.nn.encoder import Encoder

FIRST = (1, 16)
UNITS = {
    "trials": "",
    "examples_per_second": "examples/s",
    "share_of_products": "share",
    "step": "s",
    "peak_memory": "bytes",
}
# Seconds to spare for the largest pack: it has many trials to initialise, one by one, on the CPU.
LARGEST_S = 25.0


def measure(run: Run) -> None:
    rate = measure_rate()
    run.add({"measured": "matrix products"}, {"rate": measured(rate, "operations/s")})
    encoders = {name: encoder(configuration, run.device) for name, configuration in run.sizes.backbones.items()}
    seen: dict[tuple[str, int], tuple[int, float, float, int, int]] = {}
    in_order = sorted(run.sizes.packs, key=lambda size: (size not in FIRST, -size if size not in FIRST else size))
    points = [
        (num_trials, graphs, name, length)
        for num_trials, graphs in [*((size, True) for size in in_order), *_without_graphs(run)]
        for name, length in itertools.product(encoders, run.sizes.lengths)
    ]
    for num_trials, graphs, name, length in points:
        where = {"backbone": name, "length": length, "K": str(num_trials), "graphs": "may" if graphs else "off"}
        expected = expected_seconds(encoders[name].shape, run.sizes, length=length, num_trials=num_trials, rate=rate)
        if not run.deadline.allows(expected):
            run.leave_out(where, UNITS)
            continue
        pack = _measure_point(run, where, encoders[name], num_trials, rate, graphs=graphs)
        if graphs and pack is not None and num_trials >= seen.get((name, length), (0,))[0]:
            seen[name, length] = (num_trials, *pack)
    for name, length in itertools.product(encoders, reversed(run.sizes.lengths)):
        _measure_largest(run, name, encoders[name], length, rate, seen.get((name, length)))


def _without_graphs(run: Run) -> list[tuple[int, bool]]:
    """Sizes of packs that are measured again with every kernel launched by itself."""
    return [(FIRST[-1], False)] if run.device.type == "cuda" and FIRST[-1] in run.sizes.packs else []


def _measure_point(
    run: Run,
    where: Mapping[str, Any],
    backbone: Encoder,
    num_trials: int,
    rate: float,
    *,
    steps: int = MANY_STEPS,
    graphs: bool = True,
) -> tuple[float, float, int, int] | None:
    """Seconds to join and of a step, and what the arithmetic of memory needs; None where there was no time."""
    length = where["length"]
    pack = synthetic_pack(backbone, run.sizes, length=length, num_trials=num_trials, steps=steps, graphs=graphs)
    times = pack.time_steps(run.sizes.step_seconds, run.deadline)
    if not times:
        run.leave_out(where, UNITS)
        return None
    step_s = median(times)
    where = {**where, "graphs": "on" if pack.has_graphs else "off"}
    run.add(where, _quantities(run, backbone, length, num_trials, step_s, pack, rate))
    return pack.join_s, step_s, pack.bytes_per_trial, pack.tokens_per_slice


def _quantities(
    run: Run, backbone: Encoder, length: int, num_trials: int, step_s: float, pack: MeasuredPack, rate: float
) -> Mapping[str, Any]:
    examples = num_trials * run.sizes.batch_size / step_s
    flops = example_flops(backbone.shape, run.sizes, length)
    return {
        "trials": measured(num_trials, ""),
        "examples_per_second": measured(examples, "examples/s"),
        "share_of_products": measured(examples * flops / rate, "share"),
        "step": measured(step_s, "s"),
        "peak_memory": maybe(pack.peak_bytes(), "bytes", "the system does not tell"),
    }


def _measure_largest(
    run: Run,
    name: str,
    backbone: Encoder,
    length: int,
    rate: float,
    seen: tuple[int, float, float, int, int] | None,
) -> None:
    where = {"backbone": name, "length": length, "K": "largest", "graphs": "may"}
    if seen is None or run.deadline.has_passed():
        run.leave_out(where, UNITS)
        return
    most, why = largest(run, backbone, length, *seen)
    while most > seen[0]:
        done = None
        has_fitted = True
        try:
            done = _measure_point(run, where, backbone, most, rate, steps=FEW_STEPS)
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            has_fitted = False
        if has_fitted:
            if done is not None:
                run.note(f"{name}, length {length}: largest K {most}, bounded by {why}")
            return
        release_unused()
        most, why = most // 2, f"memory: {most} trials did not fit, though the arithmetic had said so"
    reason = f"no more than {seen[0]} trials: bounded by {why}"
    run.add(where, {key: unmeasured(unit, reason) for key, unit in UNITS.items()})


def largest(
    run: Run,
    backbone: Encoder,
    length: int,
    num_trials: int,
    join_s: float,
    step_s: float,
    bytes_per_trial: int,
    tokens_per_slice: int,
) -> tuple[int, str]:
    """How many trials to try, and what bounds them, from a pack of `num_trials` that was measured."""
    arithmetic = memory_model(
        backbone.shape,
        run.sizes,
        length=length,
        dtype=backbone.compute_dtype,
        bytes_per_trial=bytes_per_trial,
        tokens_per_slice=tokens_per_slice,
    )
    bounds = {"what is tried at most": run.sizes.largest_pack}
    if (free := free_bytes(backbone.device)) is not None:
        beside = arithmetic.pack_bytes(1) - bytes_per_trial
        beside = max(beside, arithmetic.pack_bytes(2**20) - 2**20 * bytes_per_trial)  # activations of a full slice
        bounds["memory"] = int((SAFETY * free - beside) // bytes_per_trial)
    seconds = min(LARGEST_S, run.deadline.left()) - run.sizes.step_seconds
    bounds["time"] = int(num_trials * max(0.0, seconds) // (join_s + 6 * step_s))
    why = min(bounds, key=lambda bound: bounds[bound])
    return bounds[why], why
