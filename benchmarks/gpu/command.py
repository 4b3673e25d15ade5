"""The command: parts in the order in which a run cut short tells the most, each in its share of the time."""

from __future__ import annotations

import argparse
import importlib
import os
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

from benchmarks import NotMeasuredError
from benchmarks.gpu import requirements
from benchmarks.gpu.clock import Budget
from benchmarks.gpu.record import Record, measured
from benchmarks.gpu.table import render

if TYPE_CHECKING:
    from benchmarks.gpu.run import Run

# part -> (the module that measures it, its weight when time is divided)
PARTS: Mapping[str, tuple[str, float]] = {
    "correctness": ("correctness", 12),
    "launches": ("launches", 4),
    "packing": ("packing", 28),
    "opponents": ("opponents", 28),
    "sweep": ("sweep", 24),
    "memory": ("memory", 4),
    "kernels": ("kernels", 4),
}
REHEARSAL = "REHEARSAL ON A CPU: its sizes are small and its numbers say nothing of a GPU"
Measure = Callable[["Run"], None]


def main(arguments: Sequence[str]) -> int:
    """Returns 0, or 1 where a part failed, 2 where it cannot begin, 130 where it was interrupted."""
    began_at = time.monotonic()
    given = _parse(arguments)
    if missing := requirements.missing():
        print(f"nothing can be measured without: pip install {' '.join(missing)}", file=sys.stderr)
        return 2
    for limit in requirements.limits():
        print(limit, file=sys.stderr)
    if given.device == "cpu":
        # Before torch looks for any. One thread, since several wait for each other where other work takes the cores.
        os.environ |= {"CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
    os.environ["HF_HUB_OFFLINE"] = "1"
    import torch

    if given.device == "cuda" and not torch.cuda.is_available():
        print("torch sees no GPU here; --device cpu rehearses the run without one", file=sys.stderr)
        return 2
    if given.task is not None and not given.task.is_dir():
        print(f"--task must be a task folder, but {given.task} is none", file=sys.stderr)
        return 2
    return _measure(given, torch.device(given.device), began_at)


def _parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks gpu", description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="folder for the JSON file and the table")
    parser.add_argument("--quick", action="store_true", help="2 minutes instead of 7")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda", help="cpu: a rehearsal at small sizes")
    parser.add_argument("--limit", type=float, metavar="SECONDS", help="time for the whole run instead")
    parser.add_argument("--parts", type=_parts, metavar="A,B,...", help=f"only these of {', '.join(PARTS)}")
    parser.add_argument("--task", type=Path, help="a task folder to train on instead of a generated task")
    parser.add_argument("--trials", type=int, metavar="N", help="trials of the part sweep, instead of 100")
    given = parser.parse_args(arguments)
    given.parts = given.parts or list(PARTS)
    if given.limit is not None and not given.limit > 0:
        parser.error(f"--limit must be a number of seconds above 0, but got {given.limit}")
    return given


def _parts(text: str) -> list[str]:
    """The parts that a list names, in the order in which they are measured."""
    named = text.split(",")
    if unknown := [name for name in named if name not in PARTS]:
        raise argparse.ArgumentTypeError(f"knows no part {', '.join(unknown)}; there are {', '.join(PARTS)}")
    return [name for name in PARTS if name in named]


def _measure(given: argparse.Namespace, device: Any, began_at: float) -> int:
    from benchmarks.gpu.machine import describe
    from benchmarks.gpu.sizes import sizes

    chosen = sizes(device=given.device, quick=given.quick)
    if given.limit is not None:
        chosen = replace(chosen, limit_s=given.limit)
    if given.trials is not None:
        rates, rest = divmod(given.trials, chosen.sweep_seeds)
        if rates < 1 or rest:
            rule = f"a multiple of {chosen.sweep_seeds}, since each learning rate is tried with so many seeds"
            print(f"--trials must be {rule}, but got {given.trials}", file=sys.stderr)
            return 2
        chosen = replace(chosen, sweep_rates=rates)
    taken_at = datetime.now(UTC)
    header = {
        "kind": REHEARSAL if given.device == "cpu" else "adaptune on one GPU",
        "taken_at": taken_at.isoformat(timespec="seconds"),
        **describe(device),
        "settings": {
            "quick": given.quick,
            "device": given.device,
            "task": str(given.task) if given.task else "generated",
            "parts": given.parts,
            "trials": given.trials,
            "time_limit": measured(chosen.limit_s, "s"),
        },
    }
    given.out.mkdir(parents=True, exist_ok=True)
    stem = f"{'rehearsal' if given.device == 'cpu' else 'gpu'}-{taken_at:%Y-%m-%dT%H%M%SZ}"
    record = Record(given.out / f"{stem}.json", header, given.parts)
    record.write()
    budget = Budget(chosen.limit_s, {name: PARTS[name][1] for name in given.parts}, began_at=began_at)
    task = str(given.task) if given.task else None
    with tempfile.TemporaryDirectory(prefix="adaptune-gpu-", ignore_cleanup_errors=True) as scratch:
        given_to_all = {"device": device, "sizes": chosen, "record": record, "scratch": Path(scratch), "task": task}
        status = run_parts({name: _measures()[name] for name in given.parts}, budget, record, given_to_all)
    record.close(time.monotonic() - began_at)
    table = render(record.content)
    (given.out / f"{stem}.txt").write_text(table + "\n", encoding="utf-8")
    print(f"{table}\n\nkept in {record.path}")
    return status


def _measures() -> Mapping[str, Measure]:
    """A part is imported as it begins, so that one that cannot be imported costs the others nothing."""

    def late(module: str) -> Measure:
        return lambda run: importlib.import_module(f"benchmarks.gpu.{module}").measure(run)

    return {name: late(module) for name, (module, _) in PARTS.items()}


def run_parts(
    measures: Mapping[str, Measure],
    budget: Budget,
    record: Record,
    given_to_all: Mapping[str, Any],
    *,
    now: Callable[[], float] = time.monotonic,
) -> int:
    """Run one part after the other, whatever becomes of each; returns the exit status."""
    from benchmarks.gpu.run import Run

    has_failed = False
    former = _stop_on_termination()
    try:
        for name, measure in measures.items():
            began = now()
            print(f"{name} ...", file=sys.stderr, flush=True)
            run = Run(part=name, deadline=budget.begin(name), **given_to_all)
            record.begin(name)
            try:
                measure(run)
            except NotMeasuredError as reason:
                record.end(name, "not measured", now() - began, str(reason))
            except KeyboardInterrupt:
                record.end(name, "interrupted", now() - began, "the run was interrupted")
                return 130
            except Exception:  # the other parts can still be measured
                has_failed = True
                record.end(name, "failed", now() - began, traceback.format_exc())
            else:
                reason = f"no time was left for: {'; '.join(run.left_out)}" if run.left_out else None
                record.end(name, "cut short" if reason else "finished", now() - began, reason)
            _give_back()
    finally:
        signal.signal(signal.SIGTERM, former)
    return 1 if has_failed else 0


def _stop_on_termination() -> Any:
    """Let a polite request to end do what Ctrl-C does."""

    def stop(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    return signal.signal(signal.SIGTERM, stop)


def _give_back() -> None:
    """What a part has left behind on the device is not the next one's."""
    import gc

    from trainables.device.memory import release_unused

    gc.collect()
    release_unused()
