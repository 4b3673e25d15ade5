"""How long the parts of a trial take on a device: as measured, and what follows from that for trials never measured.

A throughput is measured by a calibration or read off the records of earlier sweeps; where there is none, the
arithmetic of `trainables.estimate.flops` stands in. Needs no torch.
"""

from __future__ import annotations

import bisect
import json
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from trainables.config import TrialConfig

Source = Literal["calibration", "records", "arithmetic"]
# Relative errors: of what was measured, of what is interpolated between trials of the same task and method, and of
# what is carried over from another task or method.
MEASURED_ERROR: Mapping[str, float] = {"calibration": 0.15, "records": 0.2}
INTERPOLATED_ERROR, CARRIED_OVER_ERROR, ARITHMETIC_ERROR = 0.2, 0.4, 1.0
# Seconds that arithmetic gives what it cannot count: Python's own of a step of a pack and of each of its trials, of an
# evaluation and of each of its rows.
STEP_S, TRIAL_STEP_S, EVALUATION_S, EVALUATION_ROW_S = 5e-4, 5e-4, 5e-3, 1e-5


@dataclass(frozen=True, kw_only=True)
class TrialWork:
    """Operations of one trial, in the parts in which an engine meets them.

    What is frozen below everything trained is computed once an engine and task, for all trials with equal `once_key`.
    """

    num_steps: int
    num_epochs: int
    step_flops: float
    evaluation_rows: int
    evaluation_flops: float  # of one evaluation on validation
    test_rows: int  # of the splits beside training and validation, which are read once
    test_flops: float
    once_flops: float = 0.0
    once_key: str | None = None
    step_numbers: float = 0.0  # activations that a step passes through, once for each layer and way
    evaluation_numbers: float = 0.0
    test_numbers: float = 0.0
    once_numbers: float = 0.0

    @property
    def flops(self) -> float:
        """Of the whole trial, without what is computed once for many."""
        return self.num_steps * self.step_flops + self.num_epochs * self.evaluation_flops + self.test_flops


@dataclass(frozen=True, kw_only=True)
class DeviceRate:
    """What a device does in a second: operations of matrix products, and activations that pass through a layer.

    The two follow from different parts of a device. On a CPU whose products are four times as fast as another's,
    dropout, normalisation and attention take as long as there.
    """

    products: float
    numbers: float

    def seconds(self, flops: float, numbers: float) -> float:
        return flops / self.products + numbers / self.numbers


@dataclass(frozen=True, kw_only=True)
class WorkloadKey:
    """What trials have to have in common to take the same time, but for their numbers of steps and epochs."""

    task: str  # fingerprint of its data
    backbone: str  # fingerprint of its weights; empty for a method that reads none
    method: str
    precision: str
    shape: str  # the method's options and what decides how much is computed at a step, as JSON


@dataclass(frozen=True, kw_only=True)
class Throughput:
    """What was measured of one kind of trial. A pack of K of them takes `fixed_s + K * trial_s` a step."""

    source: Source
    kind: WorkloadKey
    step_flops: float
    evaluation_flops: float
    once_flops: float
    fixed_s: float
    trial_s: float
    evaluation_s: float  # of one trial on validation
    once_s: float = 0.0  # of what is computed once an engine and task
    mean_length: float | None = None  # of a row of training in word pieces; None where it was not counted
    memory_bytes: int | None = None  # of the device or process, at the peak of the largest pack that was measured

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Throughput:
        """The inverse of `to_json`. Raises `TypeError` or `KeyError` where the values are of another version."""
        return cls(**{**values, "kind": WorkloadKey(**values["kind"])})


@dataclass(frozen=True, kw_only=True)
class Timing:
    """Seconds of a trial's parts on an engine, where they come from and how far they may be off, relatively."""

    fixed_s: float
    trial_s: float
    evaluation_s: float
    test_s: float
    once_s: float
    source: Source
    error: float
    mean_length: float | None = None  # of a row of its task, where that was counted

    def step_s(self, num_trials: int) -> float:
        """Of a step of a pack of so many."""
        return self.fixed_s + num_trials * self.trial_s


def workload_key(config: TrialConfig, *, task: str, backbone: str) -> WorkloadKey:
    """The kind of a trial, its data and weights given by their fingerprints."""
    shape = {
        **config.method_options,
        "batch_size": config.batch_size,
        "max_length": config.max_length,
        "drops": config.dropout != 0,
    }
    return WorkloadKey(
        task=task,
        backbone=backbone,
        method=config.method,
        precision=config.precision,
        shape=json.dumps(shape, sort_keys=True),
    )


def arithmetic_timing(work: TrialWork, rate: DeviceRate) -> Timing:
    """What a trial takes by its operations alone, on a device of this rate."""

    def evaluation_s(flops: float, numbers: float, rows: int) -> float:
        return rate.seconds(flops, numbers) + EVALUATION_ROW_S * rows + (EVALUATION_S if rows else 0)

    return Timing(
        fixed_s=STEP_S,
        trial_s=TRIAL_STEP_S + rate.seconds(work.step_flops, work.step_numbers),
        evaluation_s=evaluation_s(work.evaluation_flops, work.evaluation_numbers, work.evaluation_rows),
        test_s=evaluation_s(work.test_flops, work.test_numbers, work.test_rows),
        once_s=rate.seconds(work.once_flops, work.once_numbers),
        source="arithmetic",
        error=ARITHMETIC_ERROR,
    )


class ThroughputTable:
    """Times trials by the throughputs that come nearest to them.

    Args:
        throughputs: what was measured, the best source first; of one kind, the first counts.
        rate_of: this device's rate for a precision, asked for only where no throughput tells.
    """

    def __init__(self, throughputs: Iterable[Throughput], rate_of: Callable[[str], DeviceRate]) -> None:
        self._paces = list(throughputs)
        self._rate_of = rate_of

    def timing(self, kind: WorkloadKey, work: TrialWork) -> Timing:
        """Seconds of a trial's parts.

        As measured, where its kind was; else between the trials of its task and method with more and with fewer
        operations a step; else what the nearest trial took an operation.
        """
        if same := [throughput for throughput in self._paces if throughput.kind == kind]:
            return _scaled(same[0], work, MEASURED_ERROR[same[0].source], same[0].mean_length)
        by_source = [
            [throughput for throughput in self._paces if throughput.source == source]
            for source in ("calibration", "records")
        ]
        for throughputs in by_source:
            near = [throughput for throughput in throughputs if _is_sibling(throughput.kind, kind)]
            if near:
                return _interpolated(near, work)
        for is_alike in (_is_same_method, _is_same_precision):
            for throughputs in by_source:
                alike = [throughput for throughput in throughputs if is_alike(throughput.kind, kind)]
                if alike:
                    nearest = min(alike, key=lambda throughput: abs(_ratio(work.step_flops, throughput.step_flops) - 1))
                    return _scaled(nearest, work, CARRIED_OVER_ERROR)
        return arithmetic_timing(work, self._rate_of(kind.precision))


def _is_sibling(throughput: WorkloadKey, kind: WorkloadKey) -> bool:
    return throughput.task == kind.task and throughput.backbone == kind.backbone and _is_same_method(throughput, kind)


def _is_same_method(throughput: WorkloadKey, kind: WorkloadKey) -> bool:
    return throughput.method == kind.method and throughput.precision == kind.precision


def _is_same_precision(throughput: WorkloadKey, kind: WorkloadKey) -> bool:
    # What reads no backbone spends its time on other things than products.
    return throughput.precision == kind.precision and bool(throughput.backbone) == bool(kind.backbone)


def _interpolated(throughputs: Sequence[Throughput], work: TrialWork) -> Timing:
    ordered = sorted(throughputs, key=lambda throughput: throughput.step_flops)
    place = bisect.bisect([throughput.step_flops for throughput in ordered], work.step_flops)
    if place in (0, len(ordered)):
        nearest = ordered[0 if place == 0 else -1]
        return _scaled(nearest, work, INTERPOLATED_ERROR, nearest.mean_length)
    low, high = ordered[place - 1], ordered[place]
    share = (work.step_flops - low.step_flops) / (high.step_flops - low.step_flops)
    below, above = _scaled(low, work, INTERPOLATED_ERROR), _scaled(high, work, INTERPOLATED_ERROR)

    def between(lower: float, upper: float) -> float:
        return lower + share * (upper - lower)

    return Timing(
        fixed_s=between(low.fixed_s, high.fixed_s),
        trial_s=between(low.trial_s, high.trial_s),
        evaluation_s=between(below.evaluation_s, above.evaluation_s),
        test_s=between(below.test_s, above.test_s),
        once_s=between(below.once_s, above.once_s),
        source=low.source,
        error=INTERPOLATED_ERROR,
        mean_length=low.mean_length,
    )


def _scaled(throughput: Throughput, work: TrialWork, error: float, mean_length: float | None = None) -> Timing:
    """What a throughput says of a trial, each part by its operations; the pack's own seconds stay."""
    evaluation_s = throughput.evaluation_s * _ratio(work.evaluation_flops, throughput.evaluation_flops)
    tested = _ratio(work.test_rows, work.evaluation_rows) if work.test_rows else 0.0
    return Timing(
        fixed_s=throughput.fixed_s,
        trial_s=throughput.trial_s * _ratio(work.step_flops, throughput.step_flops),
        evaluation_s=evaluation_s,
        test_s=evaluation_s * tested,
        once_s=throughput.once_s * _ratio(work.once_flops, throughput.once_flops) if work.once_flops else 0.0,
        source=throughput.source,
        error=error,
        mean_length=mean_length,
    )


def _ratio(asked: float, measured: float) -> float:
    return asked / measured if measured else 1.0


def fit_pack(seconds: Mapping[float, float]) -> tuple[float, float]:
    """The `fixed_s` and `trial_s` that steps of packs of these sizes say, by least squares; neither is negative.

    Of a single size, a tenth of a single trial's step is taken to be the pack's.
    """
    sizes = list(seconds)
    if len(sizes) == 1 or max(sizes) - min(sizes) < 0.5:
        size, step_s = statistics.fmean(sizes), statistics.fmean(seconds.values())
        alone_s = step_s / (FIXED_SHARE + (1 - FIXED_SHARE) * size)
        return FIXED_SHARE * alone_s, (1 - FIXED_SHARE) * alone_s
    slope, intercept = statistics.linear_regression(sizes, list(seconds.values()))
    if slope <= 0:
        return statistics.fmean(seconds.values()), 0.0
    if intercept < 0:
        return 0.0, sum(s * n for n, s in seconds.items()) / sum(n * n for n in sizes)
    return intercept, slope


# Of a step of one trial, what a pack spends whatever its size, where that was not measured.
FIXED_SHARE = 0.1
