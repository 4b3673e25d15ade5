"""From what was measured of some trials to what others will take."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.factories import trial_config
from trainables.estimate.throughput import (
    DeviceRate,
    Source,
    Throughput,
    ThroughputTable,
    TrialWork,
    WorkloadKey,
    arithmetic_timing,
    fit_pack,
    workload_key,
)

WORK = TrialWork(
    num_steps=100,
    num_epochs=2,
    step_flops=1e9,
    evaluation_rows=50,
    evaluation_flops=1e9,
    test_rows=100,
    test_flops=2e9,
)
KIND = WorkloadKey(task="t", backbone="b", method="adapter", precision="fp32", shape="{}")


def throughput(
    kind: WorkloadKey = KIND, step_flops: float = 1e9, *, source: Source = "calibration", trial_s: float = 0.1
) -> Throughput:
    return Throughput(
        source=source,
        kind=kind,
        step_flops=step_flops,
        evaluation_flops=1e9,
        once_flops=0,
        fixed_s=0.02,
        trial_s=trial_s,
        evaluation_s=0.5,
    )


def no_rate(precision: str) -> float:
    raise AssertionError("a throughput was at hand")


def test_what_was_measured_is_taken_as_it_is() -> None:
    timing = ThroughputTable([throughput(), throughput(source="records", trial_s=9)], no_rate).timing(KIND, WORK)
    assert (timing.fixed_s, timing.trial_s, timing.evaluation_s, timing.test_s) == (0.02, 0.1, 0.5, 1.0)
    assert timing.step_s(3) == pytest.approx(0.32)
    assert timing.source == "calibration"


def test_between_two_sizes_seconds_lie_where_operations_do() -> None:
    small, large = replace(KIND, shape="small"), replace(KIND, shape="large")
    book = ThroughputTable([throughput(large, 2e9, trial_s=0.3), throughput(small, 1e9, trial_s=0.1)], no_rate)
    timing = book.timing(KIND, replace(WORK, step_flops=1.5e9))
    assert timing.trial_s == pytest.approx(0.2)
    beyond = book.timing(KIND, replace(WORK, step_flops=4e9))
    assert beyond.trial_s == pytest.approx(0.6)
    exact = book.timing(large, replace(WORK, step_flops=2e9))
    assert exact.error < timing.error == beyond.error


def test_another_task_or_method_lends_its_seconds_an_operation_and_the_error_says_so() -> None:
    book = ThroughputTable([throughput()], no_rate)
    other_task = book.timing(replace(KIND, task="u"), replace(WORK, step_flops=3e9, evaluation_flops=4e9))
    assert (other_task.trial_s, other_task.evaluation_s) == (pytest.approx(0.3), pytest.approx(2.0))
    assert book.timing(replace(KIND, method="lora"), WORK).trial_s == pytest.approx(0.1)
    assert other_task.error > book.timing(replace(KIND, shape="other"), WORK).error


def rate(products: float) -> DeviceRate:
    return DeviceRate(products=products, numbers=1e9)


def test_products_and_what_is_beside_them_take_time_of_their_own() -> None:
    work = replace(WORK, step_numbers=5e8, evaluation_numbers=1e9)
    slow, fast = (arithmetic_timing(work, DeviceRate(products=products, numbers=1e9)) for products in (1e10, 4e10))
    saved_s = WORK.step_flops / 1e10 - WORK.step_flops / 4e10
    assert slow.trial_s - fast.trial_s == pytest.approx(saved_s)
    assert fast.trial_s > 0.5  # what is beside the products stays
    assert fast.evaluation_s > 1.0


def test_without_any_pace_arithmetic_stands_in() -> None:
    bare = ThroughputTable([], lambda precision: {"fp32": rate(1e10)}[precision]).timing(KIND, WORK)
    assert bare == arithmetic_timing(WORK, rate(1e10))
    assert bare.source == "arithmetic"
    assert bare.error == 1.0
    assert bare.trial_s == pytest.approx(0.1, rel=0.05)
    # A throughput of products says nothing of what reads no backbone.
    featureless = replace(KIND, backbone="", method="no_bert")
    assert (
        ThroughputTable([throughput()], lambda precision: rate(1e10)).timing(featureless, WORK).source == "arithmetic"
    )


def test_a_task_without_test_rows_is_not_tested() -> None:
    untested = replace(WORK, test_rows=0, test_flops=0.0)
    assert ThroughputTable([throughput()], no_rate).timing(KIND, untested).test_s == 0
    assert arithmetic_timing(untested, rate(1e9)).test_s == 0


def test_packs_of_several_sizes_say_what_is_the_packs_and_what_each_trials() -> None:
    assert fit_pack({1: 0.3, 4: 0.9}) == (pytest.approx(0.1), pytest.approx(0.2))
    for single in ({1.0: 0.5}, {3.0: 0.5}):
        fixed_s, trial_s = fit_pack(single)
        (size,) = single
        assert fixed_s + size * trial_s == pytest.approx(0.5)
    assert min(fit_pack({1: 0.1, 4: 0.9})) >= 0
    assert min(fit_pack({1: 0.9, 4: 0.1})) >= 0


def test_the_kind_of_a_trial_forgets_what_takes_no_time() -> None:
    first = trial_config()
    twin = replace(first, learning_rate=0.1, seed=5, num_epochs=9)
    wider = replace(first, method_options={"adapter_size": 8})
    kinds = [workload_key(config, task="t", backbone="b") for config in (first, twin, wider)]
    assert kinds[0] == kinds[1] != kinds[2]


def test_a_throughput_survives_json() -> None:
    import json

    assert Throughput.from_json(json.loads(json.dumps(throughput().to_json()))) == throughput()
