"""What a plan will cost: the sizes of its tasks and the throughputs that were measured, joined to an estimate."""

from __future__ import annotations

import logging
import platform
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from orchestrator.estimate.recorded_throughput import Place, recorded_throughputs
from orchestrator.estimate.sweep_calibration import calibrate_sweep
from orchestrator.estimate.sweep_estimate import Measurements, SweepEstimate, estimate_sweep
from orchestrator.estimate.trial_costs import TrialCosts
from orchestrator.planning.plan import PlannedTrial, SweepPlan, remaining
from orchestrator.store import Store
from trainables.faults import FaultsError

if TYPE_CHECKING:
    from trainables.device.hardware import Device
    from trainables.estimate.calibration import Calibration
    from trainables.estimate.throughput import Throughput
    from trainables.estimate.trial_cost import TrialCost

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class PlanEstimate:
    """An estimate, or why there is none, and what is to be said of it."""

    estimate: SweepEstimate | None
    devices: int
    unknown: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def estimate_plan(
    plan: SweepPlan,
    opened: Store,
    *,
    devices: int | None,
    calibrate: bool,
    earlier: Sequence[str],
    note: Callable[[str], None],
) -> PlanEstimate:
    """Estimate what is left of a sweep, after a calibration where one is asked for.

    `earlier` are stores of other sweeps whose records are read. Raises `FaultsError` where one of them is none, or a
    calibration failed.
    """
    from trainables.device.hardware import count_devices  # here: the command line's help needs no torch

    engines = devices or count_devices()
    stores = [*([opened] if opened.exists() else []), *map(existing, earlier)]
    left = trials_left(plan, opened)
    if plan.missing:
        return PlanEstimate(estimate=None, devices=engines, unknown=("data or weights are not at hand",))
    if not left:
        return PlanEstimate(estimate=None, devices=engines)
    gathered = gather(plan, left, stores, calibrate=calibrate, note=note)
    if isinstance(gathered, str):
        return PlanEstimate(estimate=None, devices=engines, unknown=(gathered,))
    notes = list(gathered.notes)
    found = estimate_sweep(
        left,
        gathered.costs,
        gathered.measurements,
        devices=engines,
        max_concurrent_trials=plan.spec.search.max_concurrent_trials,
        early_stopping=plan.spec.early_stopping,
    )
    if plan.is_adaptive:
        notes.append("the search finds its trials as it goes; the estimate is of as many drawn by chance")
    if found.expected_epochs is None:
        notes.append(
            "which trials this rule of early stopping ends cannot be foreseen; the estimate is of a sweep without it"
        )
    return PlanEstimate(estimate=found, devices=engines, notes=tuple(notes))


@dataclass(frozen=True, kw_only=True)
class Gathered:
    """What each of some trials costs, what was measured, and what is to be said of that."""

    costs: Sequence[TrialCost]
    measurements: Measurements
    notes: Sequence[str]


def gather(
    plan: SweepPlan,
    trials: Sequence[PlannedTrial],
    stores: Iterable[Store],
    *,
    calibrate: bool = False,
    note: Callable[[str], None] = logger.info,
) -> Gathered | str:
    """What is known of these trials of a plan, by a calibration and by the records of stores; or why nothing is."""
    from trainables.device.hardware import default_device
    from trainables.estimate.calibration_file import read_calibration

    device = default_device()
    trial_costs = TrialCosts(plan, device)
    costs = [trial_costs.of(trial) for trial in trials]
    known = [each for each in costs if each is not None]
    if len(known) < len(costs):
        return "how many windows the questions of extractive question answering make is known once they are tokenised"
    notes = []
    if calibrate:
        calibration: Calibration | None = calibrate_sweep(trials, known, device, note)
    else:
        calibration = read_calibration(device)
    if calibration is not None:
        notes += _about(calibration, is_new=calibrate)
    throughputs, is_here = _recorded(stores, trial_costs, device)
    if throughputs and not is_here:
        notes.append(
            "the records of earlier sweeps are of another host or device, which may be faster or slower than this one"
        )
    return Gathered(costs=known, measurements=_measurements(calibration, throughputs, device), notes=notes)


def _measurements(calibration: Calibration | None, throughputs: Sequence[Throughput], device: Device) -> Measurements:
    """What was measured, the calibration first; this device's own rate is measured only where that tells nothing."""
    from trainables.device.hardware import num_cores
    from trainables.device.memory import free_bytes
    from trainables.estimate.flops import measure_device

    free = free_bytes(device)
    if free is not None and device.type == "cpu":  # a core's share
        free //= num_cores()
    return Measurements(
        throughputs=[*(calibration.throughputs if calibration else ()), *throughputs],
        rate_of=lambda precision: measure_device(precision, num_threads=1),
        start_s=calibration.start_s if calibration else None,
        task_s=calibration.task_s if calibration else None,
        free_bytes=free,
        is_gpu=device.type == "cuda",
    )


def count_finished(plan: SweepPlan, opened: Store) -> int:
    """How many trials of a plan have a finished record, whichever sweep of the store had them trained."""
    finished = opened.finished_ids() if opened.exists() else frozenset()
    if not plan.is_adaptive:
        return len(plan.trials) - len(remaining(plan, finished))
    name = plan.spec.name  # whose proposals, among those of all sweeps in the store
    proposed = opened.plan_table(name)["trial_id"].to_pylist() if finished and name in opened.sweeps() else ()
    return len(finished.intersection(proposed))


def trials_left(plan: SweepPlan, opened: Store) -> tuple[PlannedTrial, ...]:
    """What has no finished record; of an adaptive search as many drawn by chance as it may still propose."""
    if plan.is_adaptive:
        return plan.sample_trials()[: max(0, plan.most_trials - count_finished(plan, opened))]
    return remaining(plan, opened.finished_ids() if opened.exists() else frozenset())


def existing(uri: str) -> Store:
    """The store of an earlier sweep, from which speeds are to be read. Raises `FaultsError` where there is none."""
    store = Store(uri)
    if not store.exists():
        raise FaultsError(f"store {uri}", [f"--from must name a sweep's store, but there is none in {uri}"])
    return store


def _recorded(stores: Iterable[Store], trial_costs: TrialCosts, device: Device) -> tuple[list[Throughput], bool]:
    """The throughputs that records tell, and whether they are of this machine."""
    from trainables.device.hardware import device_name

    here = Place(host=platform.node(), device=device_name(device))
    found = [recorded_throughputs(store.records(), trial_costs.of_records(store), here) for store in stores]
    of_here = [throughput for throughputs, is_here in found if is_here for throughput in throughputs]
    return (
        (of_here, True) if of_here else ([throughput for throughputs, _ in found for throughput in throughputs], False)
    )


def _about(calibration: Calibration, *, is_new: bool) -> list[str]:
    notes = [f"could not measure {fault}" for fault in calibration.faults] if is_new else []
    if is_new and calibration.core_share < 0.9:
        notes.append(
            f"other processes took {1 - calibration.core_share:.0%} of the cores while this was measured; the estimate "
            "is for cores of its own"
        )
    return notes
