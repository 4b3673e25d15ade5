"""Which of a sweep's trials a calibration measures, and on how many engines."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from orchestrator.planning.plan import PlannedTrial
from orchestrator.scheduling.engine_layout import lay_out

if TYPE_CHECKING:
    from trainables.device.hardware import Device
    from trainables.estimate.benchmark import Sample
    from trainables.estimate.calibration import Calibration
    from trainables.estimate.trial_cost import TrialCost

# A calibration measures for so long, beside loading, and gives each kind of trial at least so much of it.
CALIBRATION_S, LEAST_SAMPLE_S = 36.0, 3.0
# Kinds of one task and method that are measured apart if one computes so many times as much as the other.
FAR_APART = 1.02


def calibrate_sweep(
    left: Sequence[PlannedTrial], costs: Sequence[TrialCost], device: Device, note: Callable[[str], None]
) -> Calibration:
    from trainables.device.hardware import count_devices, num_cores
    from trainables.estimate.calibration import calibrate
    from trainables.estimate.calibration_file import keep_calibration

    resources = {"CPU": num_cores(), "GPU": count_devices() if device.type == "cuda" else 0}
    layout = lay_out({name: float(count) for name, count in resources.items()})
    together = max(1, layout.concurrent_trials(len(left)) // layout.count)
    samples = representatives(left, costs, together)
    measured = calibrate(
        samples,
        engines=min(layout.count, len(left)),
        num_threads=layout.num_threads,
        seconds=CALIBRATION_S,
        note=note,
    )
    keep_calibration(measured, device)
    return measured


def representatives(trials: Sequence[PlannedTrial], costs: Sequence[TrialCost], together: int) -> list[Sample]:
    """The trials to measure: of each task, backbone and method those with the fewest and the most operations a step.

    Where those are too many for the time there is, the ones that the sweep spends most of its operations on. They are
    measured in packs of at most `together`, and of as many as there are to share one.
    """
    from trainables.estimate.benchmark import Sample

    sharing = Counter(trial.pack_key for trial in trials)
    groups: dict[tuple[str, ...], list[int]] = {}
    for place, each in enumerate(costs):
        kind = each.kind
        groups.setdefault((kind.task, kind.backbone, kind.method, kind.precision), []).append(place)
    chosen: list[tuple[float, int]] = []
    for places in groups.values():
        total = sum(costs[place].work.flops for place in places)
        ordered = sorted(places, key=lambda place: costs[place].work.step_flops)
        low, high = ordered[0], ordered[-1]
        is_apart = costs[high].work.step_flops > FAR_APART * costs[low].work.step_flops
        chosen += [(total, place) for place in ([low, high] if is_apart else [high])]
    chosen.sort(key=lambda each: -each[0])
    most = max(1, int(CALIBRATION_S / LEAST_SAMPLE_S))
    return [
        Sample(
            config=trials[place].config,
            kind=costs[place].kind,
            work=costs[place].work,
            pack_size=min(together, sharing[trials[place].pack_key]) if costs[place].is_stackable else 1,
        )
        for _, place in chosen[:most]
    ]
