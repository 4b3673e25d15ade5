"""Every part that needs no other process, run on a CPU with and without time."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

from benchmarks.gpu import packs, trace
from benchmarks.gpu.correctness import BothSides, compare
from benchmarks.gpu.packing import largest
from benchmarks.gpu.run import NO_TIME
from tests.benchmarks.gpu.conftest import measure
from trainables.device import memory

PARTS = ("correctness", "launches", "packing", "sweep", "memory", "kernels")


def values(point: Mapping[str, Any]) -> dict[str, Any]:
    return {name: quantity["value"] for name, quantity in point["measured"].items()}


@pytest.mark.parametrize("part", PARTS)
@pytest.mark.thinned(2)
def test_every_quantity_has_a_unit_and_a_value_or_the_reason_for_none(part, complete):
    run, points = complete(part)
    assert run.left_out == []
    for quantity in (quantity for point in points for quantity in point["measured"].values()):
        assert isinstance(quantity["unit"], str)
        assert (quantity["value"] is None) == ("reason" in quantity)
        assert quantity["value"] is not None or quantity["reason"]


@pytest.mark.parametrize("part", PARTS)
def test_without_time_nothing_is_measured_and_every_point_says_so(part, make_run):
    run = make_run(part, ticks=0)
    points = measure(run)
    assert run.left_out
    left_out = [point for point in points if NO_TIME in str(point["measured"])]
    assert left_out
    assert all(value is None for point in left_out for value in values(point).values())


@pytest.mark.parametrize(("part", "ticks"), [("launches", 2), ("memory", 2), ("packing", 12), ("kernels", 12)])
@pytest.mark.thinned(1)
def test_time_that_ends_in_the_middle_leaves_the_first_points_measured(part, ticks, make_run, complete):
    _, all_points = complete(part)
    cut = make_run(part, ticks=ticks)
    points = measure(cut)
    assert cut.left_out
    assert len(cut.left_out) < len(all_points)
    assert NO_TIME not in str(points[0])
    assert NO_TIME in str(points[-1])


def test_the_same_device_twice_gives_the_same_numbers_with_dropout_and_without(complete):
    for point in complete("correctness")[1]:
        found = values(point)
        assert found["masks"] == "agree"
        assert found["largest_weight_difference"] == found["largest_loss_difference"] == 0
        assert found["steps"] == 3


def test_fewer_steps_than_wanted_are_compared_and_missed(make_run):
    run = make_run("correctness", ticks=8)
    points = measure(run)
    assert 1 <= values(points[0])["steps"] < run.sizes.correctness_steps
    assert run.left_out[0].endswith("of 3 steps")


def sides(first: np.ndarray, second: np.ndarray) -> BothSides:
    """Losses of two steps of three trials, the second side's given; weights that follow them."""
    start = np.zeros((2, 3, 4))
    end = np.stack([np.full((3, 4), losses.mean()) for losses in (first, second)])
    return BothSides(losses_2TK=np.stack([first, second]), start_2KP=start, end_2KP=end)


LOSSES = np.array([[0.7, 0.6, 0.5], [0.6, 0.5, 0.4]])


def test_where_masks_agree_numbers_are_compared_one_by_one():
    later = LOSSES + np.array([[0, 0, 0], [0.01, 0, 0]])  # apart only after weights have moved
    found = compare(sides(LOSSES, later))
    assert found["masks"]["value"] == "agree"
    assert found["largest_loss_difference"]["value"] == pytest.approx(0.01)
    assert found["largest_weight_difference"]["value"] == pytest.approx(later.mean() - LOSSES.mean())


def test_where_masks_differ_only_means_are_compared_and_the_rest_says_why():
    other = LOSSES + np.array([[0.01, -0.01, 0.02], [0.01, -0.01, 0.02]])
    found = compare(sides(LOSSES, other))
    assert found["masks"]["value"] == "differ"
    assert found["largest_loss_difference"]["value"] is None
    assert "different masks" in found["largest_loss_difference"]["reason"]
    assert found["mean_loss_on_cpu"]["value"] - found["mean_loss"]["value"] == pytest.approx(0.02 / 3)
    expected = np.array([0.01, -0.01, 0.02]).std(ddof=1) / 3**0.5
    assert found["standard_error_of_their_difference"]["value"] == pytest.approx(expected)


def test_other_dropout_seeds_count_as_other_masks(make_run, monkeypatch):
    made: list[packs.MeasuredPack] = []

    class Shifted(packs.MeasuredPack):
        def __init__(self, *arguments: Any, **named: Any) -> None:
            super().__init__(*arguments, **named)
            made.append(self)
            if len(made) % 2:
                for trial in self._pack.trials:
                    trial.dropout_seed += 1

    monkeypatch.setattr("benchmarks.gpu.correctness.MeasuredPack", Shifted)
    without, with_dropout = measure(make_run("correctness"))
    assert values(without)["masks"] == "agree"
    assert values(with_dropout)["masks"] == "differ"
    assert values(with_dropout)["mean_loss"] is not None


def test_a_cpu_counts_operations_and_says_that_it_launches_no_kernels(complete):
    _, points = complete("launches")
    assert [point["where"]["trials"] for point in points] == [1, 2]
    assert all(values(point)["dispatched_operations"] > 100 for point in points)
    assert "a CPU launches no kernels" in points[0]["measured"]["kernels"]["reason"]


def test_kernels_copies_and_launches_are_read_from_a_trace():
    events = [
        {"cat": "kernel", "name": "gemm", "dur": 10},
        {"cat": "kernel", "name": "gelu", "dur": 5},
        {"cat": "kernel", "name": "gemm", "dur": 20},
        {"cat": "gpu_memcpy", "name": "Memcpy HtoD", "dur": 1},
        {"cat": "gpu_user_annotation", "name": "Optimizer.step#AdamW.step", "dur": 99},
        {"cat": "cuda_runtime", "name": "cudaLaunchKernel", "dur": 3},
        {"cat": "cuda_runtime", "name": "cudaMemcpyAsync", "dur": 3},
        {"cat": "cuda_driver", "name": "cuLaunchKernelEx", "dur": 3},
        {"cat": "cuda_runtime", "name": "cudaStreamSynchronize", "dur": 3},
        {"name": "process_name", "ph": "M"},
    ]
    calls = trace.device_calls(events)
    assert len(calls) == 4
    assert trace.host_launches(events) == 3
    assert trace.summed(calls) == [
        ("gemm", pytest.approx(30e-6), 2),
        ("gelu", pytest.approx(5e-6), 1),
        ("Memcpy HtoD", pytest.approx(1e-6), 1),
    ]


def test_the_ten_largest_are_ranked_and_their_shares_are_of_all_kernels(complete):
    _, points = complete("kernels")
    ranked = [point for point in points if "rank" in point["where"] and point["where"]["length"] == 32]
    assert [point["where"]["rank"] for point in ranked] == list(range(1, 11))
    shares = [values(point)["share"] for point in ranked]
    assert shares == sorted(shares, reverse=True)
    assert 0.3 < sum(shares) <= 1


def test_the_largest_pack_is_bounded_by_memory_time_or_what_is_tried(make_run, monkeypatch):
    run = make_run("packing")
    encoder = packs.encoder(run.sizes.backbones["mini"], run.device)
    seen = {"num_trials": 2, "join_s": 0.001, "step_s": 0.001, "bytes_per_trial": 2**20, "tokens_per_slice": 64}
    assert largest(run, encoder, 8, **seen) == (3, "what is tried at most")
    monkeypatch.setattr("benchmarks.gpu.packing.free_bytes", lambda device: 3 * 2**20)
    assert largest(run, encoder, 8, **seen) == (2, "memory")
    assert largest(run, encoder, 8, **seen | {"join_s": 1000.0}) == (0, "time")
    assert memory.free_bytes(run.device) != 3 * 2**20  # only the benchmark was told so


def test_a_sweep_tells_of_trials_in_a_pack_and_alone(complete):
    _, (whole, alone) = complete("sweep")
    assert values(whole)["trials"] == values(whole)["completed"] == 2
    assert values(whole)["trials_per_second"] > 0
    assert values(alone)["difference"] == pytest.approx(
        values(alone)["validation_in_pack"] - values(alone)["validation_alone"]
    )


def test_a_sweep_can_train_on_a_task_folder(make_run, task_folder):
    run = make_run("sweep", task=str(task_folder(rows=16)))
    whole, _ = measure(run)
    assert values(whole)["completed"] == 2
    assert "8 training rows" in run.record.content["parts"]["sweep"]["notes"][0]


def test_a_sweep_is_scored_without_the_library_that_usually_counts(make_run, complete, monkeypatch):
    expected = values(complete("sweep")[1][0])
    monkeypatch.setattr("benchmarks.gpu.materials.is_installed", lambda name: False)
    assert values(measure(make_run("sweep"))[0])["best_validation"] == pytest.approx(expected["best_validation"])
