"""The price tag: what it says, and how it answers to devices, pruning and where its rates come from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest

from orchestrator.estimate.sweep_estimate import Measurements, SweepEstimate, estimate_sweep
from orchestrator.planning.plan import PlannedTrial
from orchestrator.spec.early_stopping import NONE, Asha, Median, Rule
from tests.factories import planned_trial, trial_config
from trainables.engine.pack_size import MemoryModel
from trainables.estimate.throughput import DeviceRate, Throughput, TrialWork, WorkloadKey
from trainables.estimate.trial_cost import TrialCost

KIND = WorkloadKey(task="t", backbone="b", method="adapter", precision="fp32", shape="{}")
MEMORY = MemoryModel(bytes_per_trial=1000, bytes_per_token=10, tokens_per_trial=100, tokens_per_slice=400)
COST = TrialCost(
    kind=KIND,
    work=TrialWork(
        num_steps=90,
        num_epochs=9,
        step_flops=1e9,
        evaluation_rows=10,
        evaluation_flops=1e9,
        test_rows=10,
        test_flops=1e9,
    ),
    memory=MEMORY,
    mean_length=10.0,
    batch_size=10,
    resident_bytes=5000,
    backbone_bytes=4000,
    is_stackable=True,
)
THROUGHPUT = Throughput(
    source="calibration",
    kind=KIND,
    step_flops=1e9,
    evaluation_flops=1e9,
    once_flops=0.0,
    fixed_s=0.0,
    trial_s=1.0,
    evaluation_s=1.0,
    memory_bytes=7777,
)


def trials(count: int) -> list[PlannedTrial]:
    return [
        planned_trial(str(number), trial_config(num_epochs=9, seed=number), pack_key="k") for number in range(count)
    ]


def ask(
    count: int = 8,
    devices: int = 2,
    rule: Rule | str = NONE,
    throughputs: Sequence[Throughput] = (THROUGHPUT,),
    rate: float = 1e9,
) -> SweepEstimate:
    measurements = Measurements(
        throughputs=throughputs, rate_of=lambda precision: DeviceRate(products=rate, numbers=1e9), start_s=0.0
    )
    return estimate_sweep(trials(count), [COST] * count, measurements, devices=devices, early_stopping=rule)


def test_trials_are_shared_by_the_engines() -> None:
    found = ask()
    # Each trains 90 steps of a second, evaluates 9 times and once on test: 100 s, and 8 of them on 2 engines.
    assert found.seconds - found.start_seconds == pytest.approx(400, rel=0.07)
    assert found.low_seconds < found.seconds < found.high_seconds
    assert (found.packs, found.trials_per_pack) == (2, pytest.approx(4, rel=0.05))
    assert found.device_seconds == {("any", trial_config().backbone, "adapter"): pytest.approx(800, rel=0.07)}
    assert (found.expected_epochs, found.most_epochs) == (72, 72)


def test_more_devices_take_less_time_and_never_more() -> None:
    seconds = [ask(devices=devices).seconds for devices in (1, 2, 4, 8, 16)]
    assert seconds == sorted(seconds, reverse=True)
    assert seconds[0] > seconds[-1]


def test_the_source_and_the_error_are_those_of_the_rates() -> None:
    measured = ask()
    assert (measured.source, dict(measured.shares)) == ("calibration", {"calibration": pytest.approx(1.0)})
    assert measured.error < 0.25
    recorded = ask(throughputs=[replace(THROUGHPUT, source="records")])
    assert recorded.source == "records"
    computed = ask(throughputs=[])
    assert (computed.source, computed.error) == ("arithmetic", pytest.approx(1.0))
    assert computed.seconds == pytest.approx(measured.seconds, rel=0.1)  # at the rate that the throughput has
    assert ask(throughputs=[], rate=1e12).seconds < computed.seconds


def test_early_stopping_takes_less_than_all_epochs_and_says_both() -> None:
    whole, pruned = ask(24), ask(24, rule=Asha())
    assert pruned.most_seconds == pytest.approx(whole.seconds)
    assert pruned.seconds < 0.8 * whole.seconds
    assert pruned.expected_epochs is not None
    assert 24 < pruned.expected_epochs < pruned.most_epochs == 24 * 9


def test_a_rule_without_expectation_is_estimated_as_if_nobody_were_stopped() -> None:
    found = ask(rule=Median())
    assert found.expected_epochs is None
    assert found.seconds == found.most_seconds == ask().seconds


def test_memory_is_what_was_measured_or_else_computed() -> None:
    assert (ask().memory_bytes, ask().is_memory_measured) == (7777, True)
    computed = ask(throughputs=[])
    # Backbone and process, four trials, and what one pass of 400 word pieces keeps.
    assert (computed.memory_bytes, computed.is_memory_measured) == (5000 + 4 * 1000 + 4000, False)


def test_a_single_trial_leaves_other_devices_idle() -> None:
    assert ask(1, devices=4).seconds == pytest.approx(ask(1, devices=2).seconds, rel=0.05)
