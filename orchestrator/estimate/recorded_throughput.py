"""Throughputs read off the records of earlier sweeps: what their trials took, whoever they shared a pack with."""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from orchestrator.record import TrialRecord, TrialStatus
from trainables.estimate.throughput import Throughput, TrialWork, WorkloadKey, fit_pack


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where trials are trained: a host and the name of its device."""

    host: str
    device: str


@dataclass(frozen=True, kw_only=True)
class _Seen:
    """What one record says of its kind."""

    pack_size: float
    step_s: float  # of a step of its pack
    others_s: float  # what the trial lived through beside steps
    evaluations: float  # of its pack in that time
    memory_bytes: int | None


def place_of(record: TrialRecord) -> Place | None:
    """Where a trial was trained; None where its record does not say."""
    device = record.provenance.get("device")
    if record.engine is None or device is None:
        return None
    return Place(host=record.engine.partition("/")[0], device=device)


def recorded_throughputs(
    records: Iterable[TrialRecord], known: Callable[[TrialRecord], tuple[WorkloadKey, TrialWork] | None], here: Place
) -> tuple[list[Throughput], bool]:
    """The throughput of each kind of trial that was completed, and whether they were trained here.

    `known` gives what is known of a record's trial, None where that is nothing. Where no record is of this place,
    those of others are taken.
    """
    usable = [
        record
        for record in records
        if record.status is TrialStatus.COMPLETED
        and record.epochs
        and record.examples_per_second
        and record.pack_size
        and record.duration_s is not None
    ]
    of_here = [record for record in usable if place_of(record) == here]
    seen: dict[WorkloadKey, list[_Seen]] = defaultdict(list)
    works: dict[WorkloadKey, TrialWork] = {}
    for record in of_here or usable:
        if (found := known(record)) is None:
            continue
        kind, work = found
        works.setdefault(kind, work)
        seen[kind].append(_see(record, work))
    return [_throughput(kind, works[kind], each) for kind, each in seen.items()], bool(of_here)


def _see(record: TrialRecord, work: TrialWork) -> _Seen:
    """Take a record apart. Its pack-mates were evaluated in its time too; at the end, half of them before it was."""
    assert record.examples_per_second is not None
    assert record.pack_size is not None
    assert record.duration_s is not None
    steps, size, epochs = record.epochs[-1].step, record.pack_size, len(record.epochs)
    step_s = int(record.hyperparameters["batch_size"] or 1) / record.examples_per_second
    tested = work.test_rows / work.evaluation_rows if work.evaluation_rows else 0.0
    return _Seen(
        pack_size=size,
        step_s=step_s,
        others_s=max(0.0, record.duration_s - steps * step_s),
        evaluations=size * (epochs - 1) + (size + 1) / 2 * (1 + tested),
        memory_bytes=record.peak_memory_bytes,
    )


def _throughput(kind: WorkloadKey, work: TrialWork, seen: list[_Seen]) -> Throughput:
    by_size: dict[float, list[float]] = defaultdict(list)
    for each in seen:
        by_size[round(each.pack_size, 1)].append(each.step_s)
    fixed_s, trial_s = fit_pack({size: statistics.median(times) for size, times in by_size.items()})
    evaluation_s = statistics.median(each.others_s / each.evaluations for each in seen)
    # What is computed once, the first trial of an engine waited for.
    longest_s = max(each.others_s - evaluation_s * each.evaluations for each in seen)
    peaks = [each.memory_bytes for each in seen if each.memory_bytes is not None]
    return Throughput(
        source="records",
        kind=kind,
        step_flops=work.step_flops,
        evaluation_flops=work.evaluation_flops,
        once_flops=work.once_flops,
        fixed_s=fixed_s,
        trial_s=trial_s,
        evaluation_s=evaluation_s,
        once_s=max(0.0, longest_s) if work.once_flops else 0.0,
        memory_bytes=max(peaks, default=None),
    )
