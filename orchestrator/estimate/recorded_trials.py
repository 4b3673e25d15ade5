"""The plan of a store with the times that its own records tell. Needs neither torch nor the sweep's data."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from orchestrator.estimate.recorded_throughput import Place, place_of, recorded_throughputs
from orchestrator.estimate.timed_trials import TimedTrials
from orchestrator.planning.plan import PlannedTrial, SweepPlan, planned_from_table, remaining
from orchestrator.record import TrialRecord, TrialStatus
from orchestrator.spec.spec import SweepSpec, parse_spec
from orchestrator.store import Store
from trainables.estimate.throughput import (
    CARRIED_OVER_ERROR,
    DeviceRate,
    ThroughputTable,
    TrialWork,
    WorkloadKey,
    workload_key,
)
from trainables.faults import FaultsError

# No record is of this place, so that those of all places count.
_NOWHERE = Place(host="", device="")


@dataclass(frozen=True, kw_only=True)
class RecordedSweep:
    """A sweep as its store knows it."""

    spec: SweepSpec
    timed: TimedTrials
    is_gpu: bool  # whether its trials were trained on GPUs
    devices: tuple[str, ...]  # the names of what they were trained on
    notes: tuple[str, ...]


def recorded_sweep(store: Store, earlier: Sequence[Store] = (), sweep: str | None = None) -> RecordedSweep:
    """All trials of a store's sweep, the one last run or that of this name, timed by its records.

    `earlier` are stores whose records count too. Raises `FaultsError` where no record tells how long a trial takes.
    """
    spec = parse_spec(json.loads(store.spec_json(sweep)))
    planned = planned_from_table(store.plan_table(spec.name))
    trials = remaining(SweepPlan(spec=spec, trials=tuple(planned)), ())
    known = {trial.trial_id: trial for each in earlier for trial in planned_from_table(each.plan_table())}
    known |= {trial.trial_id: trial for trial in planned_from_table(store.plan_table())}
    records = [record for each in (*earlier, store) for record in each.records()]

    def kind_of(record: TrialRecord) -> tuple[WorkloadKey, TrialWork] | None:
        trial = known.get(record.trial_id)
        return None if trial is None else (_kind(trial), _work(trial, record))

    throughputs, _ = recorded_throughputs(records, kind_of, _NOWHERE)
    if not throughputs or not trials:
        rule = "there must be completed trials whose times tell those of the others"
        raise FaultsError(
            f"store {store.uri}", [f"{rule}, but there are none; name a sweep instead, or one with --from"]
        )
    of_trial = {record.trial_id: record for record in records}
    book = ThroughputTable(throughputs, _unknown_rate)
    works = [_work(trial, of_trial.get(trial.trial_id)) for trial in trials]
    timings = [book.timing(_kind(trial), work) for trial, work in zip(trials, works, strict=True)]
    limits = _limits(known, records)
    places = {place for record in records if (place := place_of(record)) is not None}
    foreign = sum(timing.error >= CARRIED_OVER_ERROR for timing in timings)
    return RecordedSweep(
        spec=spec,
        timed=TimedTrials(
            trials=trials,
            kinds=[_kind(trial).task for trial in trials],
            backbones=[_kind(trial).backbone for trial in trials],
            timings=timings,
            works=works,
            limits=[limits.get(trial.pack_key, 1) for trial in trials],
            trained=_trained(trials, of_trial),
        ),
        is_gpu=any("cuda" in (record.engine or "").partition("/")[2] for record in records),
        devices=tuple(sorted({place.device for place in places})),
        notes=tuple(_notes(foreign, store.unproposed(spec.name), len(places))),
    )


def _notes(foreign: int, unproposed: int, places: int) -> Iterable[str]:
    yield "a pack holds at most as many trials as one of its kind held in the records"
    if foreign:
        yield f"{foreign:,} trials have no record of their task and method, and are taken to be as fast as others"
    if unproposed:
        yield f"{unproposed:,} trials that the search has not thought of yet are left out"
    if places > 1:
        yield f"the records are of {places} different devices or hosts; of each kind of trial the median counts"


def _kind(trial: PlannedTrial) -> WorkloadKey:
    task = trial.provenance.get("data_fingerprint") or trial.task
    return workload_key(trial.config, task=task, backbone=trial.config.backbone)


def _work(trial: PlannedTrial, record: TrialRecord | None) -> TrialWork:
    """How much a trial does, in trials of its kind: operations need its data and its backbone, which may be elsewhere.

    What is computed once an engine is seen in what the first trial of a kind took longer than the others.
    """
    kind, epochs, fold = _kind(trial), trial.config.num_epochs, trial.config.fold
    seen = record.epochs[-1].step / len(record.epochs) * epochs if record is not None and record.epochs else None
    tested = 0 if record is not None and record.test_score is None else 1
    return TrialWork(
        num_steps=trial.num_steps or round(seen or epochs),
        num_epochs=epochs,
        step_flops=1.0,
        evaluation_rows=1,
        evaluation_flops=1.0,
        test_rows=tested,
        test_flops=float(tested),
        once_flops=1.0,
        once_key=f"{kind.task}{'' if fold is None else f' fold {fold}'} {kind.method} {kind.shape}",
    )


def _limits(known: Mapping[str, PlannedTrial], records: Iterable[TrialRecord]) -> Mapping[str | None, int]:
    """The most trials that were together in a pack, on average over one trial, by pack key."""
    most: Counter[str | None] = Counter()
    for record in records:
        trial = known.get(record.trial_id)
        if trial is not None and trial.pack_key is not None and record.pack_size:
            most[trial.pack_key] = max(most[trial.pack_key], math.ceil(record.pack_size))
    return most


def _trained(trials: Sequence[PlannedTrial], records: Mapping[str, TrialRecord]) -> dict[int, int]:
    """The epochs of trials that ended by themselves or were pruned, by their place."""
    trained = {}
    for place, trial in enumerate(trials):
        record = records.get(trial.trial_id)
        if record is not None and record.status is not TrialStatus.CANCELLED:
            trained[place] = max(1, len(record.epochs))
    return trained


def _unknown_rate(precision: str) -> DeviceRate:
    rule = f"there must be the record of a completed trial in {precision}, but there is none"
    raise FaultsError(
        "simulation", [f"{rule}; name the sweep file instead of its store, or a store that has one by --from"]
    )
