"""Clusters of several sizes beside each other: what they cost, how busy they are, where more stops paying."""

from __future__ import annotations

import subprocess
import sys

import pytest

from orchestrator.estimate.makespan import Load
from orchestrator.estimate.outages import Outages
from orchestrator.estimate.simulation import Nodes, Simulated, longest_alone, simulate, steps
from trainables.faults import FaultsError

LOADS = [Load(key=None, num_steps=10, fixed_s=0.0, trial_s=10.0, own_s=0.0, limit=1) for _ in range(40)]


def simulated(devices: int, seconds: float) -> Simulated:
    return Simulated(
        nodes=devices, devices=devices, seconds=seconds, utilisation=0.0, cost=None, failures=0, begun_anew=0, packs=0,
        trials_per_pack=0.0,
    )  # fmt: skip


def test_a_cluster_is_paid_from_the_command_to_the_report_and_busy_between() -> None:
    found = simulate(LOADS, Nodes(count=2, gpus=4), start_s=20.0, price=3.6)
    assert (found.nodes, found.devices) == (2, 8)
    assert found.seconds == pytest.approx(20 + 5 * 100, rel=0.01)
    assert found.cost == pytest.approx(found.seconds * 8 / 1000)
    assert found.utilisation == pytest.approx(40 * 100 / (8 * found.seconds))


def test_engines_that_share_a_gpu_are_one_device() -> None:
    found = simulate(LOADS, Nodes(count=1, gpus=2, engines_per_gpu=4), start_s=0.0, price=3.6)
    assert found.devices == 2
    assert found.seconds == pytest.approx(5 * 100, rel=0.01)
    assert found.cost == pytest.approx(found.seconds * 2 / 1000)


def test_nodes_without_gpus_have_an_engine_a_core() -> None:
    assert simulate(LOADS, Nodes(count=5, gpus=0, cpus=2), start_s=0.0).devices == 10


def test_nodes_that_are_away_are_not_paid() -> None:
    calm = simulate(LOADS, Nodes(count=4, gpus=1), start_s=0.0, price=1.0)
    stormy = simulate(LOADS, Nodes(count=4, gpus=1), start_s=0.0, price=1.0, outages=Outages(per_hour=6))
    assert stormy.failures > 0
    assert stormy.seconds > calm.seconds
    assert stormy.cost is not None
    assert stormy.cost < stormy.seconds * 4 / 3600


def test_nodes_that_fail_too_often_are_a_fault_of_what_was_asked() -> None:
    with pytest.raises(FaultsError, match="--failures-per-hour"):
        simulate(LOADS, Nodes(count=1, gpus=1), start_s=0.0, outages=Outages(per_hour=1e4))


def test_an_added_device_is_worth_what_it_does_beside_one_of_the_first() -> None:
    first, second, third = steps([simulated(10, 10.0), simulated(100, 5.0), simulated(1, 100.0), simulated(1000, 6.0)])
    assert (first.devices, first.more, first.times_faster) == (1, 10, 10.0)
    assert first.worth == pytest.approx(1.0)
    # 0.1 sweeps a second more for 90 devices; each of the first does 0.01.
    assert second.worth == pytest.approx(0.1 / 90 / 0.01)
    assert third.worth < 0
    assert [step.pays for step in (first, second, third)] == [True, False, False]
    assert steps([simulated(1, 1.0)]) == []


def test_no_cluster_is_quicker_than_the_longest_trial() -> None:
    loads = [*LOADS, Load(key=None, num_steps=1, fixed_s=1.0, trial_s=400.0, own_s=3.0, once=(("task", 2.0),))]
    assert longest_alone(loads) == pytest.approx(406)
    found = simulate(loads, Nodes(count=1000, gpus=1), start_s=20.0)
    assert 426 <= found.seconds < 427


@pytest.mark.thorough
def test_simulating_a_store_needs_neither_torch_nor_ray() -> None:
    modules = "orchestrator.cli.simulate, orchestrator.estimate.recorded_trials"
    code = f"import sys, {modules}; sys.exit(', '.join({{'torch', 'ray', 'mlflow'}} & set(sys.modules)) or 0)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
