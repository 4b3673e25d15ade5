"""What `adaptune plan` knows of time: the sizes of tasks and the paces that were measured, joined to an estimate."""

from __future__ import annotations

import json
import os
import platform
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

from orchestrator.planning.plan import PlannedTrial, SweepPlan, remaining
from orchestrator.record import TrialRecord
from orchestrator.store import Store
from trainables.faults import FaultsError

if TYPE_CHECKING:
    from orchestrator.estimate.sweep_estimate import Estimate, Ground
    from trainables.device.dtype import Device
    from trainables.estimate.benchmark import Sample
    from trainables.estimate.calibration import Calibration
    from trainables.estimate.throughput import Kind, Pace, TrialWork
    from trainables.estimate.trial_cost import TrialSketch

# A calibration measures for so long, beside loading, and gives each kind of trial at least so much of it.
CALIBRATION_S, LEAST_SAMPLE_S = 36.0, 3.0
# Kinds of one task and method that are measured apart if one computes so many times as much as the other.
FAR_APART = 1.02


@dataclass(frozen=True, kw_only=True)
class Price:
    """An estimate, or why there is none, and what is to be said of it."""

    estimate: Estimate | None
    devices: int
    unknown: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def price_sweep(
    plan: SweepPlan,
    opened: Store,
    *,
    devices: int | None,
    calibrate: bool,
    earlier: Sequence[str],
    note: Callable[[str], None],
) -> Price:
    """Estimate what is left of a sweep, after a calibration where one is asked for.

    `earlier` are stores of other sweeps whose records are read. Raises `FaultsError` where one of them is none, or a
    calibration failed.
    """
    # Here: the command line's help needs no torch.
    from orchestrator.estimate.sweep_estimate import estimate
    from trainables.device.dtype import count_devices, default_device
    from trainables.estimate.calibration_file import read_calibration

    engines = devices or count_devices()
    stores = [*([opened] if opened.exists() else []), *map(_existing, earlier)]
    left = trials_left(plan, opened)
    if plan.missing:
        return Price(estimate=None, devices=engines, unknown=("data or weights are not at hand",))
    if not left:
        return Price(estimate=None, devices=engines)
    device = default_device()
    sketcher = _Sketcher(plan, device)
    sketches = [sketcher.of(trial) for trial in left]
    known = [each for each in sketches if each is not None]
    if len(known) < len(sketches):
        why = "how many windows the questions of extractive question answering make is known once they are tokenised"
        return Price(estimate=None, devices=engines, unknown=(why,))
    notes = []
    if calibrate:
        calibration: Calibration | None = _calibrate(left, known, device, note)
    else:
        calibration = read_calibration(device)
    if calibration is not None:
        notes += _about(calibration, is_new=calibrate)
    paces, is_here = _observed(stores, sketcher, device)
    if paces and not is_here:
        notes.append("the records of earlier sweeps are of another host or device, whose pace this one need not have")
    found = estimate(
        left,
        known,
        _ground(calibration, paces, device),
        devices=engines,
        max_concurrent_trials=plan.spec.search.max_concurrent_trials,
        early_stopping=plan.spec.early_stopping,
    )
    if plan.is_adaptive:
        notes.append("the search finds its trials as it goes; the estimate is of as many drawn by chance")
    if found.expected_epochs is None:
        notes.append("whom this rule of early stopping stops cannot be told before; the estimate is as if it were none")
    return Price(estimate=found, devices=engines, notes=tuple(notes))


def _ground(calibration: Calibration | None, paces: Sequence[Pace], device: Device) -> Ground:
    """What was measured, the calibration first; this device's own rate is measured only where that tells nothing."""
    from orchestrator.estimate.sweep_estimate import Ground
    from trainables.device.memory import free_bytes
    from trainables.estimate.flops import EFFICIENCY, measure_rate

    free = free_bytes(device)
    if free is not None and device.type == "cpu":  # a core's share
        free //= os.cpu_count() or 1
    return Ground(
        paces=[*(calibration.paces if calibration else ()), *paces],
        rate_of=lru_cache(lambda precision: EFFICIENCY * measure_rate(precision, num_threads=1)),
        start_s=calibration.start_s if calibration else None,
        task_s=calibration.task_s if calibration else None,
        free_bytes=free,
        is_gpu=device.type == "cuda",
    )


def trials_left(plan: SweepPlan, opened: Store) -> tuple[PlannedTrial, ...]:
    """What has no finished record; of an adaptive search as many drawn by chance as it may still propose."""
    finished = opened.finished_ids() if opened.exists() else frozenset()
    if not plan.is_adaptive:
        return remaining(plan, finished)
    return plan.sample_trials()[: max(0, plan.most_trials - len(finished))]


class _Sketcher:
    """What is known of trials, by their task's size and their backbone's shape, each read once."""

    def __init__(self, plan: SweepPlan, device: Device) -> None:
        self._device = device
        self._planned = {trial.trial_id: trial for trial in plan.trials}
        self._sketches: dict[str, TrialSketch | None] = {}

    def of(self, trial: PlannedTrial) -> TrialSketch | None:
        """None where the number of its steps is not known, or not what it trains."""
        if trial.config_id not in self._sketches:  # replicates cost the same
            self._sketches[trial.config_id] = self._sketch(trial)
        return self._sketches[trial.config_id]

    def of_records(self, store: Store) -> Callable[[TrialRecord], tuple[Kind, TrialWork] | None]:
        """What is known of the trials of a store; None of those whose data or backbone are no more at hand."""
        planned = self._planned | _planned_in(store)

        def known(record: TrialRecord) -> tuple[Kind, TrialWork] | None:
            trial = planned.get(record.trial_id)
            try:
                found = None if trial is None else self.of(trial)
            except FaultsError:
                return None
            return None if found is None else (found.kind, found.work)

        return known

    def _sketch(self, trial: PlannedTrial) -> TrialSketch | None:
        from trainables import tasks
        from trainables.estimate.flops import measure_task
        from trainables.estimate.preview import preview_backbone
        from trainables.estimate.trial_cost import sketch

        fingerprint = trial.provenance.get("data_fingerprint")
        if trial.trained_params is None or fingerprint is None or tasks.describe(trial.config.task).kind == _WINDOWED:
            return None
        return sketch(
            trial.config,
            measure_task(trial.config.task, trial.config.max_length),
            task_fingerprint=fingerprint,
            backbone=preview_backbone(trial.config.backbone).info,
            trained_params=trial.trained_params,
            device=self._device,
        )


_WINDOWED = "extractive_qa"


def _planned_in(store: Store) -> dict[str, PlannedTrial]:
    """The trials that a store's records are of, with the data's fingerprint from the records."""
    from trainables.config import TrialConfig

    rows = store.plan_table().select(["trial_id", "config_id", "task", "config", "trained_params"]).to_pylist()
    provenance = {record.trial_id: record.provenance for record in store.records()}
    return {
        row["trial_id"]: PlannedTrial(
            trial_id=row["trial_id"],
            config_id=row["config_id"],
            task=row["task"],
            config=TrialConfig(**json.loads(row["config"])),
            trained_params=row["trained_params"],
            provenance=provenance[row["trial_id"]],
        )
        for row in rows
        if row["trial_id"] in provenance
    }


def _existing(uri: str) -> Store:
    store = Store(uri)
    if not store.exists():
        raise FaultsError(f"store {uri}", [f"--from must name a sweep's store, but there is none in {uri}"])
    return store


def _observed(stores: Iterable[Store], sketcher: _Sketcher, device: Device) -> tuple[list[Pace], bool]:
    """The paces that records tell, and whether they are of this machine."""
    from orchestrator.estimate.recorded_throughput import Place, observed_paces
    from trainables.device.dtype import device_name

    here = Place(host=platform.node(), device=device_name(device))
    found = [observed_paces(store.records(), sketcher.of_records(store), here) for store in stores]
    of_here = [pace for paces, is_here in found if is_here for pace in paces]
    return (of_here, True) if of_here else ([pace for paces, _ in found for pace in paces], False)


def _calibrate(
    left: Sequence[PlannedTrial], sketches: Sequence[TrialSketch], device: Device, note: Callable[[str], None]
) -> Calibration:
    from orchestrator.scheduling.engines import lay_out
    from trainables.device.dtype import count_devices
    from trainables.estimate.calibration import calibrate
    from trainables.estimate.calibration_file import keep_calibration

    resources = {"CPU": os.cpu_count() or 1, "GPU": count_devices() if device.type == "cuda" else 0}
    layout = lay_out({name: float(count) for name, count in resources.items()})
    together = max(1, layout.concurrent_trials(len(left)) // layout.count)
    samples = representatives(left, sketches, together)
    measured = calibrate(
        samples,
        engines=min(layout.count, len(left)),
        num_threads=layout.num_threads,
        seconds=CALIBRATION_S,
        note=note,
    )
    keep_calibration(measured, device)
    return measured


def representatives(trials: Sequence[PlannedTrial], sketches: Sequence[TrialSketch], together: int) -> list[Sample]:
    """The trials to measure: of each task and method those with the fewest and with the most operations a step.

    Where those are too many for the time there is, the ones that the sweep spends most of its operations on. They are
    measured in packs of at most `together`, and of as many as there are to share one.
    """
    from trainables.estimate.benchmark import Sample

    sharing = Counter(trial.pack_key for trial in trials)
    groups: dict[tuple[str, ...], list[int]] = {}
    for place, each in enumerate(sketches):
        groups.setdefault((each.kind.task, each.kind.method, each.kind.precision), []).append(place)
    chosen: list[tuple[float, int]] = []
    for places in groups.values():
        total = sum(sketches[place].work.flops for place in places)
        ordered = sorted(places, key=lambda place: sketches[place].work.step_flops)
        low, high = ordered[0], ordered[-1]
        is_apart = sketches[high].work.step_flops > FAR_APART * sketches[low].work.step_flops
        chosen += [(total, place) for place in ([low, high] if is_apart else [high])]
    chosen.sort(key=lambda each: -each[0])
    most = max(1, int(CALIBRATION_S / LEAST_SAMPLE_S))
    return [
        Sample(
            config=trials[place].config,
            kind=sketches[place].kind,
            work=sketches[place].work,
            pack_size=min(together, sharing[trials[place].pack_key]) if sketches[place].is_stackable else 1,
        )
        for _, place in chosen[:most]
    ]


def _about(calibration: Calibration, *, is_new: bool) -> list[str]:
    notes = [f"could not measure {fault}" for fault in calibration.faults] if is_new else []
    if is_new and calibration.core_share < 0.9:
        notes.append(
            f"other processes took {1 - calibration.core_share:.0%} of the cores while this was measured; the estimate "
            "is for cores of its own"
        )
    return notes


def cost_of(seconds: float, devices: int, price: float | None) -> float | None:
    """What devices cost for so many seconds, at a price for one of them and an hour; None where there is no price."""
    return None if price is None else seconds / 3600 * devices * price
