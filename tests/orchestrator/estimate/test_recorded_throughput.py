"""What records tell of time: predictions from them must give back the durations they were made of."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from orchestrator.estimate.makespan import Load, play
from orchestrator.estimate.recorded_throughput import Place, place_of, recorded_throughputs
from orchestrator.record import TrialRecord, TrialStatus
from tests.factories import epoch_report, planned_trial, trial_config, trial_record
from trainables.estimate.throughput import ThroughputTable, TrialWork, WorkloadKey

KIND = WorkloadKey(task="t", backbone="b", method="adapter", precision="fp32", shape="{}")
WORK = TrialWork(
    num_steps=40,
    num_epochs=4,
    step_flops=1e9,
    evaluation_rows=10,
    evaluation_flops=1e9,
    test_rows=20,
    test_flops=2e9,
)
HERE = Place(host="vm", device="cpu x2")


def records(
    size: int, *, fixed_s: float, trial_s: float, evaluation_s: float, host: str = "vm"
) -> Sequence[TrialRecord]:
    """Those of a pack of `size` trials that begin together, taken apart as an engine meets them."""
    step_s = fixed_s + size * trial_s
    made = []
    for place in range(size):
        epochs = 4 * [10 * step_s + size * evaluation_s]
        # At the end, those before it in the pack are evaluated and tested first, and those after it no more.
        epochs[-1] = 10 * step_s + (place + 1) * evaluation_s + place * 2 * evaluation_s
        reports = tuple(epoch_report(e, duration_s=seconds) for e, seconds in enumerate(epochs, start=1))
        made.append(
            trial_record(
                planned_trial(f"{host}{size}{place}", trial_config(batch_size=32, seed=place)),
                duration_s=sum(epochs) + 2 * evaluation_s,
                examples_per_second=32 / step_s,
                pack_size=float(size),
                peak_memory_bytes=1000 + size,
                engine=f"{host}/cpu",
                provenance={"device": "cpu x2"},
                epochs=reports,
            )
        )
    return made


def known(record: TrialRecord) -> tuple[WorkloadKey, TrialWork]:
    return KIND, WORK


def test_the_parts_of_trials_are_read_off_their_records() -> None:
    made = [each for size in (1, 2, 4) for each in records(size, fixed_s=0.1, trial_s=0.3, evaluation_s=0.5)]
    (throughput,), is_here = recorded_throughputs(made, known, HERE)
    assert is_here
    assert (throughput.fixed_s, throughput.trial_s) == (pytest.approx(0.1), pytest.approx(0.3))
    assert throughput.evaluation_s == pytest.approx(0.5, rel=0.1)
    assert (throughput.source, throughput.kind, throughput.memory_bytes) == ("records", KIND, 1004)


@pytest.mark.parametrize("size", [1, 3])
def test_played_through_they_give_back_the_time_they_took(size: int) -> None:
    made = records(size, fixed_s=0.1, trial_s=0.3, evaluation_s=0.5)
    throughputs, _ = recorded_throughputs(made, known, HERE)
    timing = ThroughputTable(throughputs, lambda precision: 1.0).timing(KIND, WORK)
    load = Load(
        key="k",
        num_steps=40,
        fixed_s=timing.fixed_s,
        trial_s=timing.trial_s,
        own_s=4 * timing.evaluation_s + timing.test_s,
        limit=4,
    )
    taken = max(record.duration_s or 0 for record in made)
    assert play([load] * size, engines=1).seconds == pytest.approx(taken, rel=0.02)


def test_records_of_this_place_are_taken_before_others_and_others_only_where_there_are_none() -> None:
    here = records(1, fixed_s=0.0, trial_s=1.0, evaluation_s=0.1)
    there = records(1, fixed_s=0.0, trial_s=9.0, evaluation_s=0.1, host="far")
    (throughput,), is_here = recorded_throughputs([*there, *here], known, HERE)
    assert is_here
    assert throughput.fixed_s + throughput.trial_s == pytest.approx(1.0)
    (throughput,), is_here = recorded_throughputs(there, known, HERE)
    assert not is_here
    assert throughput.fixed_s + throughput.trial_s == pytest.approx(9.0)
    assert place_of(there[0]) == Place(host="far", device="cpu x2")


def test_what_did_not_complete_or_is_no_more_known_tells_nothing() -> None:
    from dataclasses import replace

    (record,) = records(1, fixed_s=0.1, trial_s=0.3, evaluation_s=0.5)
    pruned = replace(record, status=TrialStatus.PRUNED)
    unmeasured = replace(record, examples_per_second=None)
    assert recorded_throughputs([pruned, unmeasured], known, HERE) == ([], False)
    assert recorded_throughputs([record], lambda record: None, HERE)[0] == []
    assert place_of(replace(record, engine=None)) is None
